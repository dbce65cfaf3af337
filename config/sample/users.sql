-- Sample database of accounts: written for litemesh, every id made by SQLite as ordinary apps do it.
CREATE TABLE role (
    id INTEGER NOT NULL,
    name VARCHAR(80) NOT NULL,
    description VARCHAR(255),
    PRIMARY KEY (id),
    UNIQUE (name)
);
CREATE TABLE user (
    id INTEGER NOT NULL,
    username VARCHAR(80) NOT NULL,
    password_hash VARCHAR(128),
    team_number INTEGER,
    is_active BOOLEAN NOT NULL DEFAULT 1,
    created_at DATETIME,
    PRIMARY KEY (id),
    UNIQUE (username)
);
CREATE TABLE user_roles (
    user_id INTEGER NOT NULL,
    role_id INTEGER NOT NULL,
    PRIMARY KEY (user_id, role_id),
    FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE,
    FOREIGN KEY (role_id) REFERENCES role (id)
);
INSERT INTO role (id, name, description) VALUES
    (1, 'admin', 'May do everything'),
    (2, 'analytics', 'Reads and compares'),
    (3, 'scout', 'Writes down what happens on the field');
INSERT INTO user (id, username, password_hash, team_number, created_at) VALUES
    (1, 'mentor', 'sample-no-login', 202, '2025-03-01 08:00:00'),
    (2, 'ada', 'sample-no-login', 202, '2025-03-01 08:05:00'),
    (3, 'grace', 'sample-no-login', 202, '2025-03-01 08:06:00');
INSERT INTO user_roles (user_id, role_id) VALUES (1, 1), (2, 3), (3, 3), (3, 2);
