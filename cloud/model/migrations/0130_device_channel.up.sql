-- Until when a device counts as heard, so that any server can say that it is silent.
ALTER TABLE device ADD COLUMN heartbeat_until BIGINT;
CREATE INDEX device_heartbeat ON device (heartbeat_until) WHERE api_heartbeat_state IN ('online', 'timeout');
-- It fetches what it is asked to do.
ALTER TABLE device ADD COLUMN takes_actions BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE device_action ADD COLUMN answer_type TEXT;
