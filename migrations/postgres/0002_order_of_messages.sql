-- Messages of one batch are visible at the same moment: without their numbers in the index, whoever takes one of them sorts
-- them all.
DROP INDEX queue_messages_ready;
CREATE INDEX queue_messages_ready ON queue_messages (queue, visible_at, sequence) WHERE dead_at IS NULL;
