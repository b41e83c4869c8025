-- locate: reads the live routes of users, and drops the fields that have expired.
--
-- Of the source document: GET connection, for one user at a time. Added: many users in one call, and all devices of each.
--
-- KEYS, one for each user, in the slot of {uid} (32 hexadecimal digits):
--   connection:{uid}  HASH device -> "edge_id|boot|session|began.expires" (ms); 60 s; written by connect and refresh
-- ARGV: none.
-- Source of times: the server's clock.
--
-- Returns for each route, one after the other: the index of its user in KEYS from 0, the device, the value.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local results = {}
local count = 0
for i, connection in ipairs(KEYS) do
    local fields = redis.call('HGETALL', connection)
    for j = 1, #fields, 2 do
        if tonumber(string.sub(fields[j + 1], -13)) > now then
            results[count + 1] = i - 1
            results[count + 2] = fields[j]
            results[count + 3] = fields[j + 1]
            count = count + 3
        else
            redis.call('HDEL', connection, fields[j])
        end
    end
end
return results
