-- typing: notes that people are writing in conversations, or no longer.
--
-- Of the source document: typing, with its time to live. Added: the kind, and the key typists, because keys of single
-- people cannot be listed; and an end before the time is over.
--
-- KEYS, two for each of them, both in the slot of {conversation} (32 hexadecimal digits):
--   typing:{conversation}:<uid>  "1" for text, "2" for a recording; 5 s; written here; the document's key
--   typists:{conversation}       HASH uid -> "kind|expires_ms" (13 digits); 5 s; written here; added, because keys of
--                                single people cannot be listed
-- ARGV: for each of them: uid, kind; "0" when it is over.
-- Source of times: the server's clock. Source of everything else: svc_edge, through Track.
--
-- Returns how many began or go on.
local clock = redis.call('TIME')
local expires = string.format('|%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000) + 5000)
local count = 0
for i = 0, #KEYS / 2 - 1 do
    local typing, typists = KEYS[2 * i + 1], KEYS[2 * i + 2]
    local user, kind = ARGV[2 * i + 1], ARGV[2 * i + 2]
    if kind == '0' then
        redis.call('DEL', typing)
        redis.call('HDEL', typists, user)
    else
        count = count + 1
        redis.call('SET', typing, kind, 'EX', 5)
        redis.call('HSET', typists, user, kind .. expires)
        redis.call('EXPIRE', typists, 5)
    end
end
return count
