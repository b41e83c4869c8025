"""The WebSocket door: RFC 6455 over picows, in binary protobuf (`chappe.v1`) or JSON text (`chappe.v1.json`)."""
