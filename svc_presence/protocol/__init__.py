"""The pure parts of the registry: deadlines, what is believed of a person, and who watches whom. No I/O, no clock."""
