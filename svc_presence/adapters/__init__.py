"""The registry's store on Redis or Valkey, and in memory."""
