"""The same session of two ORMs, for a plain and for a steered file: `orms.py schema PATH` makes the tables as the ORMs
do, `orms.py play PATH` writes and prints what the app sees. An id is printed as the name of the row that has it, so
two files print the same exactly when they differ in nothing but the ids' values. The last line begins with `ids` and
holds the ids themselves."""

import json
import sqlite3
import sys

MODE, PATH = sys.argv[1:]


def say(what, *values):
    print(what, json.dumps(values, default=str))


def named(table, column, id):
    """The row that has an id, as another connection sees it."""
    with sqlite3.connect(PATH) as other:
        found = other.execute(f"SELECT {column} FROM {table} WHERE id = ?", (id,)).fetchall()
    return found[0][0] if found else f"no row of {table} has the id"


def dump(title, *queries):
    with sqlite3.connect(PATH) as other:
        say(title, [other.execute(query).fetchall() for query in queries])


def sqlalchemy_session():
    import sqlalchemy as sa
    from sqlalchemy import orm
    from sqlalchemy.dialects.sqlite import insert

    class Base(orm.DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "sa_user"
        id = sa.Column(sa.Integer, primary_key=True)
        username = sa.Column(sa.String(80), unique=True, nullable=False)
        email = sa.Column(sa.String(120), unique=True)
        active = sa.Column(sa.Boolean(create_constraint=True), nullable=False, default=True)
        made = sa.Column(sa.DateTime, nullable=False, server_default=sa.func.now())
        teams = orm.relationship("Team", back_populates="owner", cascade="all, delete-orphan")

    class Team(Base):
        __tablename__ = "sa_team"
        id = sa.Column(sa.Integer, primary_key=True)
        number = sa.Column(sa.Integer, nullable=False)
        season = sa.Column(sa.Integer, nullable=False)
        owner_id = sa.Column(sa.ForeignKey("sa_user.id", ondelete="CASCADE"), nullable=False, index=True)
        owner = orm.relationship(User, back_populates="teams")
        __table_args__ = (sa.UniqueConstraint("number", "season"),)

    class Entry(Base):
        __tablename__ = "sa_entry"
        id = sa.Column(sa.Integer, primary_key=True)
        team_id = sa.Column(sa.ForeignKey("sa_team.id"), index=True)
        notes = sa.Column(sa.Text, nullable=False)
        __table_args__ = {"sqlite_autoincrement": True}

    engine = sa.create_engine("sqlite:///" + PATH)

    @sa.event.listens_for(engine, "connect")
    def keys(connection, _):
        connection.execute("PRAGMA foreign_keys = ON")

    if MODE == "schema":
        Base.metadata.create_all(engine)
        # CHECKs can be tried out with a row only.
        with orm.Session(engine) as session:
            session.add(User(username="first"))
            session.commit()
        return

    rows = (
        "SELECT username, email, active FROM sa_user ORDER BY id",
        "SELECT number, season, username FROM sa_team AS t JOIN sa_user AS u ON u.id = owner_id ORDER BY t.id",
        "SELECT notes, number FROM sa_entry AS e LEFT JOIN sa_team AS t ON t.id = team_id ORDER BY e.id",
    )
    with orm.Session(engine) as session:
        for number in range(40):
            user = User(username=f"one {number}", teams=[Team(number=number, season=1)])
            session.add(user)
            session.commit()
            say("commit", named("sa_user", "username", user.id), named("sa_team", "number", user.teams[0].id))
        session.add_all([User(username=f"many {number}", email=f"{number}@example.org") for number in range(60)])
        session.flush()
        session.commit()
        found = session.scalars(sa.select(User).where(User.username.like("many%"))).all()
        say("many", sorted((user.username, named("sa_user", "username", user.id)) for user in found))
        for clash in (User(username="one 3"), User(username="x", email="4@example.org"), User(username=None)):
            session.add(clash)
            try:
                session.commit()
            except sa.exc.IntegrityError as error:
                session.rollback()
                say("refused", str(error.orig))
        for number in range(20):
            session.add(User(username=f"outer {number}"))
            session.flush()
            try:
                with session.begin_nested():
                    session.add_all([User(username=f"inner {number}"), User(username=f"one {number}")])
            except sa.exc.IntegrityError as error:
                say("nested", str(error.orig))
            session.commit()
            session.add(User(username=f"gone {number}"))
            session.flush()
            session.rollback()
        last = session.scalars(sa.select(User).order_by(User.id.desc()).limit(1)).one()
        session.delete(last)
        session.commit()
        kept = session.merge(User(username="merged", teams=[Team(number=500, season=2)]))
        session.commit()
        say("merged", named("sa_user", "username", kept.id))
        session.delete(session.scalars(sa.select(User).where(User.username == "one 7")).one())
        session.commit()
        first = session.scalars(sa.select(Team).order_by(Team.id)).first()
        result = session.execute(
            sa.insert(Entry).returning(Entry.id, Entry.notes),
            [{"notes": f"returned {number}", "team_id": first.id} for number in range(50)],
        )
        returned = result.all()
        session.commit()
        say("returning", [(row.notes, named("sa_entry", "notes", row.id)) for row in returned])
    with engine.begin() as connection:
        connection.execute(sa.insert(Entry), [{"notes": f"executemany {number}"} for number in range(50)])
    for number in range(20):
        with engine.begin() as connection:
            made = connection.execute(sa.insert(Entry).values(notes=f"core {number}"))
            id, count = made.inserted_primary_key[0], made.rowcount
        say("core", named("sa_entry", "notes", id), count)
    for number in range(30, 70):
        with engine.begin() as connection:
            values = {"username": f"many {number}", "email": f"new {number}"}
            nothing = connection.execute(insert(User).values(values).on_conflict_do_nothing())
            change = insert(User).values(values)
            change = change.on_conflict_do_update(index_elements=["username"], set_={"email": change.excluded.email})
            changed = connection.execute(change.returning(User.id)).scalar_one()
            ignored = connection.execute(sa.insert(User).prefix_with("OR IGNORE").values(values)).rowcount
            replaced = connection.execute(
                sa.insert(Team).prefix_with("OR REPLACE").values(number=number % 9 + 500, season=2, owner_id=changed)
            ).rowcount
        say("upsert", nothing.rowcount, named("sa_user", "username", changed), ignored, replaced)
    with engine.begin() as connection:
        connection.execute(sa.insert(User).from_select(
            ["username", "active"], sa.select(sa.literal("copy of ") + User.username, sa.literal(True)).order_by(User.id)))
    dump("SQLAlchemy", *rows)


def django_session():
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": PATH}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    from django.db import IntegrityError, connection, models, transaction

    class Event(models.Model):
        code = models.CharField(max_length=20, unique=True)
        weight = models.PositiveIntegerField(default=1)
        data = models.JSONField(default=dict)

        class Meta:
            app_label = "pit"
            db_table = "dj_event"

    class Match(models.Model):
        event = models.ForeignKey(Event, on_delete=models.CASCADE)
        number = models.IntegerField()
        label = models.CharField(max_length=20, blank=True)
        made = models.DateTimeField(auto_now_add=True)

        class Meta:
            app_label = "pit"
            db_table = "dj_match"
            constraints = [models.UniqueConstraint(fields=["event", "number"], name="one_number")]

    if MODE == "schema":
        with connection.schema_editor() as editor:
            editor.create_model(Event)
            editor.create_model(Match)
        Match.objects.create(event=Event.objects.create(code="first"), number=1)
        return

    for number in range(40):
        event = Event.objects.create(code=f"e{number}", data={"n": number})
        match = Match.objects.create(event=event, number=1, label=f"m{number}")
        say("create", named("dj_event", "code", event.pk), named("dj_match", "label", match.pk))
    made = Event.objects.bulk_create([Event(code=f"bulk {number}") for number in range(60)])
    say("bulk", [(event.code, event.pk and named("dj_event", "code", event.pk)) for event in made])
    Event.objects.bulk_create([Event(code=f"bulk {number}") for number in range(50, 80)], ignore_conflicts=True)
    Event.objects.bulk_create(
        [Event(code=f"bulk {number}", weight=number) for number in range(70, 99)],
        update_conflicts=True, unique_fields=["code"], update_fields=["weight"],
    )
    for number in range(20):
        for code in (f"bulk {number}", f"got {number}"):
            event, new = Event.objects.get_or_create(code=code)
            changed, made_new = Event.objects.update_or_create(code=code + "!", defaults={"weight": number})
            say("get", named("dj_event", "code", event.pk), new, named("dj_event", "code", changed.pk), made_new)
        try:
            with transaction.atomic():
                outer = Event.objects.create(code=f"outer {number}")
                try:
                    with transaction.atomic():
                        Event.objects.create(code=f"inner {number}")
                        Event.objects.create(code=f"bulk {number}")
                except IntegrityError as error:
                    say("inner", str(error))
                if number % 2:
                    raise IntegrityError("given up")
        except IntegrityError as error:
            say("outer", str(error), named("dj_event", "code", outer.pk))
        Event.objects.order_by("-pk").first().delete()
        try:
            with transaction.atomic():
                Match.objects.create(event_id=1_000_000_000, number=1)
        except IntegrityError as error:
            say("foreign key", "FOREIGN KEY" in str(error) or "foreign key" in str(error))
    events = list(Event.objects.order_by("pk")[:30])
    Match.objects.bulk_create([Match(event=event, number=2, label=f"{event.code}/2") for event in events])
    dump(
        "Django",
        "SELECT code, weight, data FROM dj_event ORDER BY id",
        "SELECT number, label, code FROM dj_match AS m JOIN dj_event AS e ON e.id = event_id ORDER BY m.id",
    )


sqlalchemy_session()
django_session()
if MODE == "play":
    with sqlite3.connect(PATH) as other:
        tables = ("sa_user", "sa_team", "sa_entry", "dj_event", "dj_match")
        print("ids", json.dumps({t: [id for (id,) in other.execute(f"SELECT id FROM {t} ORDER BY id")] for t in tables}))
