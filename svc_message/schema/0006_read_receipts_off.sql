-- The status of a direct message once its recipient gives, or its sender gets, no read receipts.
--
-- The source document's status of a message is sent, delivered or read, and its settings have `read_receipts`. Added:
-- that a message was read counts for its reader's own devices, and is kept from its sender.
ALTER TABLE receipts ADD COLUMN is_read_told boolean NOT NULL DEFAULT true;     -- the sender may know that it was read
