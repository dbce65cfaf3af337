-- Sample database of a robotics scouting app: written for litemesh, every id made by SQLite as ordinary apps do it.
CREATE TABLE event (
    id INTEGER NOT NULL,
    code VARCHAR(20) NOT NULL,
    name VARCHAR(100) NOT NULL,
    starts DATE,
    PRIMARY KEY (id),
    UNIQUE (code)
);
CREATE TABLE team (
    id INTEGER NOT NULL,
    team_number INTEGER NOT NULL,
    team_name VARCHAR(100),
    location VARCHAR(100),
    PRIMARY KEY (id),
    UNIQUE (team_number)
);
CREATE TABLE team_event (
    team_id INTEGER NOT NULL,
    event_id INTEGER NOT NULL,
    PRIMARY KEY (team_id, event_id),
    FOREIGN KEY (team_id) REFERENCES team (id) ON DELETE CASCADE,
    FOREIGN KEY (event_id) REFERENCES event (id) ON DELETE CASCADE
);
CREATE TABLE match (
    id INTEGER NOT NULL,
    event_id INTEGER NOT NULL,
    match_type VARCHAR(20) NOT NULL,
    match_number INTEGER NOT NULL,
    red_alliance VARCHAR(50),
    blue_alliance VARCHAR(50),
    red_score INTEGER,
    blue_score INTEGER,
    PRIMARY KEY (id),
    FOREIGN KEY (event_id) REFERENCES event (id)
);
CREATE TABLE scouting_entry (
    id INTEGER NOT NULL,
    match_id INTEGER NOT NULL,
    team_id INTEGER NOT NULL,
    scout VARCHAR(80),
    auto_points INTEGER NOT NULL DEFAULT 0,
    teleop_points INTEGER NOT NULL DEFAULT 0,
    notes TEXT,
    written_at DATETIME,
    PRIMARY KEY (id),
    FOREIGN KEY (match_id) REFERENCES match (id),
    FOREIGN KEY (team_id) REFERENCES team (id)
);
CREATE INDEX ix_scouting_entry_match ON scouting_entry (match_id);
INSERT INTO event (id, code, name, starts) VALUES (1, 'SAMPLE', 'Sample Regional', '2025-03-06');
INSERT INTO team (id, team_number, team_name, location) VALUES
    (1, 101, 'Gear Herons', 'North Pier'),
    (2, 202, 'Copper Foxes', 'Mill Town'),
    (3, 303, 'Loop Raiders', 'Lakeside'),
    (4, 404, 'Missing Link', 'Old Harbour'),
    (5, 505, 'Torque Owls', 'Pine Ridge'),
    (6, 606, 'Second Shift', 'Stone Bridge');
INSERT INTO team_event (team_id, event_id) VALUES (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1);
INSERT INTO match (id, event_id, match_type, match_number, red_alliance, blue_alliance) VALUES
    (1, 1, 'qualification', 1, '101,202,303', '404,505,606'),
    (2, 1, 'qualification', 2, '202,404,606', '101,303,505');
INSERT INTO scouting_entry (id, match_id, team_id, scout, auto_points, teleop_points, notes, written_at) VALUES
    (1, 1, 2, 'ada', 12, 41, 'fast, never stops', '2025-03-06 09:12:00'),
    (2, 1, 5, 'grace', 10, 38, NULL, '2025-03-06 09:12:30');
