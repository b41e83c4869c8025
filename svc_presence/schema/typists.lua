-- typists: reads who is writing in conversations, and drops the fields that have expired.
--
-- Of the source document: GET typing, for one person at a time. Added: everybody who is writing in a conversation, for
-- those who open it in the middle.
--
-- KEYS, one for each conversation, in the slot of {conversation} (32 hexadecimal digits):
--   typists:{conversation}  HASH uid -> "kind|expires_ms" (13 digits); 5 s; written by typing
-- ARGV: none.
-- Source of times: the server's clock.
--
-- Returns for each typist, one after the other: the index of the conversation in KEYS from 0, the user, the kind, and
-- for how many ms more it holds.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local results = {}
local count = 0
for i, typists in ipairs(KEYS) do
    local fields = redis.call('HGETALL', typists)
    for j = 1, #fields, 2 do
        local left = tonumber(string.sub(fields[j + 1], -13)) - now
        if left > 0 then
            results[count + 1] = i - 1
            results[count + 2] = fields[j]
            results[count + 3] = tonumber(string.sub(fields[j + 1], 1, -15))
            results[count + 4] = left
            count = count + 4
        else
            redis.call('HDEL', typists, fields[j])
        end
    end
end
return results
