-- bye: forgets sessions that ended, unless a newer session of the device stands there.
--
-- Of the source document: lastseen, written when a user goes, and the end of connection and online, which the document
-- leaves to their times to live. Added: what stands there is compared, because the old server's farewell may come after
-- the new server's greeting.
--
-- KEYS, three for each session, all in the slot of {uid} (32 hexadecimal digits):
--   connection:{uid}  HASH device -> "edge_id|boot|session|began.expires" (ms); 60 s; written by connect and refresh
--   online:{uid}      "1"; 45 s; deleted here when no live device is left
--   lastseen:{uid}    Unix time in ms; 30 days; written by connect, refresh and bye
-- ARGV: for each session: device, "edge_id|boot|session".
-- Source of times: the server's clock. Source of everything else: svc_edge, through Track.
--
-- Returns how many sessions were forgotten.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local count = 0
for i = 0, #KEYS / 3 - 1 do
    local connection, device, session = KEYS[3 * i + 1], ARGV[2 * i + 1], ARGV[2 * i + 2]
    local stored = redis.call('HGET', connection, device)
    if stored and string.sub(stored, 1, #session + 1) == session .. '|' then
        count = count + 1
        redis.call('HDEL', connection, device)
        redis.call('SET', KEYS[3 * i + 3], string.format('%.0f', now), 'EX', 2592000)
        local is_alone = true
        for _, value in ipairs(redis.call('HVALS', connection)) do
            is_alone = is_alone and tonumber(string.sub(value, -13)) <= now
        end
        if is_alone then
            redis.call('DEL', KEYS[3 * i + 2])
        end
    end
end
return count
