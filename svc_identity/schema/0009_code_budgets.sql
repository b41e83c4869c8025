-- Not in the source document: how many one-time codes went to one network of clients, and to one range of numbers, in an
-- hour. A holder is the keyed hash of either; neither an address nor a number stands here.
CREATE TABLE code_budgets (
    budget text NOT NULL,
    holder bytea NOT NULL CHECK (octet_length(holder) = 16),
    hour integer NOT NULL,  -- hours since 1970
    used integer NOT NULL,
    PRIMARY KEY (budget, holder)
) WITH (fillfactor = 80);

CREATE INDEX code_budgets_by_hour ON code_budgets (hour);
