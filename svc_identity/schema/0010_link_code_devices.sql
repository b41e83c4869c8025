-- Not in the source document: which device asked for a link code. The code is good while that device is linked; one of
-- before this column, or of a program that does not know it, names none and is refused.
ALTER TABLE link_codes ADD COLUMN asking_device_id smallint;
