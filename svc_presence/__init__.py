"""The registry: knows who is reachable right now, and where.

It owns Redis: the route of every session, when a person was last seen, who is typing and who watches.
svc_edge reports sessions and asks for watches on one stream; svc_fanout asks it for routes.
All that it holds expires, and the edges rebuild it after a flush.
It must never hold anything that durability needs, and never show presence past its audience.
"""
