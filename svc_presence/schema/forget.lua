-- forget: forgets routes that were found gone, unless a newer session of the device stands there.
--
-- Of the source document: connection, whose stale values it does not mention. Added: whoever found that a session is not
-- where it should be says so, and the value is compared before it goes.
--
-- KEYS, two for each route, all in the slot of {uid} (32 hexadecimal digits):
--   connection:{uid}  HASH device -> "edge_id|boot|session|began.expires" (ms); 60 s; written by connect and refresh
--   online:{uid}      "1"; 45 s; deleted here when no live device is left
-- ARGV: for each route: device, "edge_id|boot|session".
-- Source of times: the server's clock. Source of everything else: svc_fanout, through Locate.
--
-- Returns how many routes were forgotten.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local count = 0
for i = 0, #KEYS / 2 - 1 do
    local connection, device, session = KEYS[2 * i + 1], ARGV[2 * i + 1], ARGV[2 * i + 2]
    local stored = redis.call('HGET', connection, device)
    if stored and string.sub(stored, 1, #session + 1) == session .. '|' then
        count = count + 1
        redis.call('HDEL', connection, device)
        local is_alone = true
        for _, value in ipairs(redis.call('HVALS', connection)) do
            is_alone = is_alone and tonumber(string.sub(value, -13)) <= now
        end
        if is_alone then
            redis.call('DEL', KEYS[2 * i + 2])
        end
    end
end
return count
