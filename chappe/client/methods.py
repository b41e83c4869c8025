"""The methods that a client may call over the edge's bridge, with the types of what goes in and comes out."""

from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    device_service_pb2,
    group_service_pb2,
    profile_service_pb2,
    registration_service_pb2,
    session_service_pb2,
)
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2, receipt_service_pb2
from chappe.api.presence.v1 import presence_service_pb2

Question = TypeVar("Question", bound=Message)
Answer = TypeVar("Answer", bound=Message)

_IDENTITY = "chappe.api.identity.v1."
_MESSAGE = "chappe.api.message.v1."
_PRESENCE = "chappe.api.presence.v1."


class Method(NamedTuple, Generic[Question, Answer]):
    """One unary method."""

    name: str
    """The full name, "package.Service/Method"."""
    question: type[Question]
    answer: type[Answer]
    is_idempotent: bool = True
    """A call whose answer was lost may simply be made again."""


START_VERIFICATION = Method(
    _IDENTITY + "RegistrationService/StartVerification",
    registration_service_pb2.StartVerificationRequest,
    registration_service_pb2.StartVerificationResponse,
    is_idempotent=False,
)
CHECK_VERIFICATION = Method(
    _IDENTITY + "RegistrationService/CheckVerification",
    registration_service_pb2.CheckVerificationRequest,
    registration_service_pb2.CheckVerificationResponse,
    is_idempotent=False,
)
REGISTER_ACCOUNT = Method(
    _IDENTITY + "RegistrationService/RegisterAccount",
    registration_service_pb2.RegisterAccountRequest,
    registration_service_pb2.RegisterAccountResponse,
)
CREATE_SESSION = Method(
    _IDENTITY + "SessionService/CreateSession",
    session_service_pb2.CreateSessionRequest,
    session_service_pb2.CreateSessionResponse,
    is_idempotent=False,
)
LIST_SESSIONS = Method(
    _IDENTITY + "SessionService/ListSessions",
    session_service_pb2.ListSessionsRequest,
    session_service_pb2.ListSessionsResponse,
)
REVOKE_SESSION = Method(
    _IDENTITY + "SessionService/RevokeSession",
    session_service_pb2.RevokeSessionRequest,
    session_service_pb2.RevokeSessionResponse,
)
LIST_DEVICES = Method(
    _IDENTITY + "DeviceService/ListDevices",
    device_service_pb2.ListDevicesRequest,
    device_service_pb2.ListDevicesResponse,
)
START_LINK = Method(
    _IDENTITY + "DeviceService/StartLink",
    device_service_pb2.StartLinkRequest,
    device_service_pb2.StartLinkResponse,
    is_idempotent=False,
)
LINK_DEVICE = Method(
    _IDENTITY + "DeviceService/LinkDevice",
    device_service_pb2.LinkDeviceRequest,
    device_service_pb2.LinkDeviceResponse,
)
UNLINK_DEVICE = Method(
    _IDENTITY + "DeviceService/UnlinkDevice",
    device_service_pb2.UnlinkDeviceRequest,
    device_service_pb2.UnlinkDeviceResponse,
)
LIST_CONTACTS = Method(
    _IDENTITY + "ContactService/ListContacts",
    contact_service_pb2.ListContactsRequest,
    contact_service_pb2.ListContactsResponse,
)
ADD_CONTACT = Method(
    _IDENTITY + "ContactService/AddContact",
    contact_service_pb2.AddContactRequest,
    contact_service_pb2.AddContactResponse,
)
REMOVE_CONTACT = Method(
    _IDENTITY + "ContactService/RemoveContact",
    contact_service_pb2.RemoveContactRequest,
    contact_service_pb2.RemoveContactResponse,
)
LOOKUP_CONTACTS = Method(
    _IDENTITY + "ContactService/LookupContacts",
    contact_service_pb2.LookupContactsRequest,
    contact_service_pb2.LookupContactsResponse,
)
GET_PROFILE = Method(
    _IDENTITY + "ProfileService/GetProfile",
    profile_service_pb2.GetProfileRequest,
    profile_service_pb2.GetProfileResponse,
)
UPDATE_PROFILE = Method(
    _IDENTITY + "ProfileService/UpdateProfile",
    profile_service_pb2.UpdateProfileRequest,
    profile_service_pb2.UpdateProfileResponse,
)
BLOCK_USER = Method(
    _IDENTITY + "BlockService/BlockUser",
    block_service_pb2.BlockUserRequest,
    block_service_pb2.BlockUserResponse,
)
UNBLOCK_USER = Method(
    _IDENTITY + "BlockService/UnblockUser",
    block_service_pb2.UnblockUserRequest,
    block_service_pb2.UnblockUserResponse,
)
LIST_BLOCKS = Method(
    _IDENTITY + "BlockService/ListBlocks",
    block_service_pb2.ListBlocksRequest,
    block_service_pb2.ListBlocksResponse,
)
CREATE_GROUP = Method(
    _IDENTITY + "GroupService/CreateGroup",
    group_service_pb2.CreateGroupRequest,
    group_service_pb2.CreateGroupResponse,
)
GET_GROUP = Method(
    _IDENTITY + "GroupService/GetGroup",
    group_service_pb2.GetGroupRequest,
    group_service_pb2.GetGroupResponse,
)
BATCH_GET_GROUPS = Method(
    _IDENTITY + "GroupService/BatchGetGroups",
    group_service_pb2.BatchGetGroupsRequest,
    group_service_pb2.BatchGetGroupsResponse,
)
LIST_GROUPS = Method(
    _IDENTITY + "GroupService/ListGroups",
    group_service_pb2.ListGroupsRequest,
    group_service_pb2.ListGroupsResponse,
)
UPDATE_GROUP = Method(
    _IDENTITY + "GroupService/UpdateGroup",
    group_service_pb2.UpdateGroupRequest,
    group_service_pb2.UpdateGroupResponse,
)
ADD_MEMBERS = Method(
    _IDENTITY + "GroupService/AddMembers",
    group_service_pb2.AddMembersRequest,
    group_service_pb2.AddMembersResponse,
)
REMOVE_MEMBER = Method(
    _IDENTITY + "GroupService/RemoveMember",
    group_service_pb2.RemoveMemberRequest,
    group_service_pb2.RemoveMemberResponse,
)
LEAVE_GROUP = Method(
    _IDENTITY + "GroupService/LeaveGroup",
    group_service_pb2.LeaveGroupRequest,
    group_service_pb2.LeaveGroupResponse,
)
SET_ROLE = Method(
    _IDENTITY + "GroupService/SetRole",
    group_service_pb2.SetRoleRequest,
    group_service_pb2.SetRoleResponse,
)
LIST_MEMBERS = Method(
    _IDENTITY + "GroupService/ListMembers",
    group_service_pb2.ListMembersRequest,
    group_service_pb2.ListMembersResponse,
)
CREATE_INVITE = Method(
    _IDENTITY + "GroupService/CreateInvite",
    group_service_pb2.CreateInviteRequest,
    group_service_pb2.CreateInviteResponse,
)
REVOKE_INVITE = Method(
    _IDENTITY + "GroupService/RevokeInvite",
    group_service_pb2.RevokeInviteRequest,
    group_service_pb2.RevokeInviteResponse,
)
JOIN_BY_INVITE = Method(
    _IDENTITY + "GroupService/JoinByInvite",
    group_service_pb2.JoinByInviteRequest,
    group_service_pb2.JoinByInviteResponse,
)
BATCH_GET_PROFILES = Method(
    _IDENTITY + "ProfileService/BatchGetProfiles",
    profile_service_pb2.BatchGetProfilesRequest,
    profile_service_pb2.BatchGetProfilesResponse,
)
LIST_MESSAGES = Method(
    _MESSAGE + "HistoryService/ListMessages",
    history_service_pb2.ListMessagesRequest,
    history_service_pb2.ListMessagesResponse,
)
UPDATE_CONVERSATION = Method(
    _MESSAGE + "ConversationService/UpdateConversation",
    conversation_service_pb2.UpdateConversationRequest,
    conversation_service_pb2.UpdateConversationResponse,
)
LIST_CONVERSATIONS = Method(
    _MESSAGE + "ConversationService/ListConversations",
    conversation_service_pb2.ListConversationsRequest,
    conversation_service_pb2.ListConversationsResponse,
)
BATCH_GET_PRESENCE = Method(
    _PRESENCE + "PresenceService/BatchGetPresence",
    presence_service_pb2.BatchGetPresenceRequest,
    presence_service_pb2.BatchGetPresenceResponse,
)
LIST_TYPING = Method(
    _PRESENCE + "PresenceService/ListTyping",
    presence_service_pb2.ListTypingRequest,
    presence_service_pb2.ListTypingResponse,
)
BATCH_GET_RECEIPTS = Method(
    _MESSAGE + "ReceiptService/BatchGetReceipts",
    receipt_service_pb2.BatchGetReceiptsRequest,
    receipt_service_pb2.BatchGetReceiptsResponse,
)
LIST_RECEIPTS = Method(
    _MESSAGE + "ReceiptService/ListReceipts",
    receipt_service_pb2.ListReceiptsRequest,
    receipt_service_pb2.ListReceiptsResponse,
)
GET_SETTINGS = Method(
    _IDENTITY + "ProfileService/GetSettings",
    profile_service_pb2.GetSettingsRequest,
    profile_service_pb2.GetSettingsResponse,
)
UPDATE_SETTINGS = Method(
    _IDENTITY + "ProfileService/UpdateSettings",
    profile_service_pb2.UpdateSettingsRequest,
    profile_service_pb2.UpdateSettingsResponse,
)
LIST_MUTUAL_GROUPS = Method(
    _IDENTITY + "ContactService/ListMutualGroups",
    contact_service_pb2.ListMutualGroupsRequest,
    contact_service_pb2.ListMutualGroupsResponse,
)
