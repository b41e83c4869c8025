"""The gRPC door of the ledger: wire types to model and back, caller identity, nothing else."""

from svc_message.rpc.history import ConversationRpc, HistoryRpc
from svc_message.rpc.message import MessageRpc
from svc_message.rpc.receipt import ReceiptRpc
from svc_message.rpc.trace import TraceRpc

__all__ = ["ConversationRpc", "HistoryRpc", "MessageRpc", "ReceiptRpc", "TraceRpc"]
