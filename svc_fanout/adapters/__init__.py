"""The carrier's ways to svc_presence and to the edges."""
