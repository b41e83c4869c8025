"""Where the directory meets PostgreSQL, phones and svc_message; each also as a fake in memory."""
