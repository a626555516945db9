ALTER TABLE device_action DROP COLUMN answer_type;
ALTER TABLE device DROP COLUMN takes_actions;
DROP INDEX device_heartbeat;
ALTER TABLE device DROP COLUMN heartbeat_until;
