"""The rules of the registry: routes, who is told of whose presence, who is shown typing, and answers to questions."""
