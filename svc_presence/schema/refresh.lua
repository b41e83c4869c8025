-- refresh: keeps sessions registered that have shown that they live, and registers them again after a loss.
--
-- Of the source document: online, connection and lastseen, set again with each sign of life. Added: lastseen is written
-- here too, so that it is right when a server dies; a session never takes the place of a newer one.
--
-- KEYS, three for each session, all in the slot of {uid} (32 hexadecimal digits):
--   connection:{uid}  HASH device -> "edge_id|boot|session|began.expires" (ms); 60 s; written by connect and refresh
--   online:{uid}      "1"; 45 s; written by connect and refresh
--   lastseen:{uid}    Unix time in ms; 30 days; written by connect, refresh and bye
-- ARGV: "edge_id|boot|" of the edge, then for each session: device, session (16 hexadecimal digits).
-- Source of times: the server's clock. Source of everything else: svc_edge, through Track.
--
-- Returns for each session: 0 when it was written, 1 when a newer session of the device stands there and was left.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local expires = string.format('%.0f', now + 60000)
local results = {}
for i = 0, #KEYS / 3 - 1 do
    local connection, device = KEYS[3 * i + 1], ARGV[2 * i + 2]
    local session = ARGV[1] .. ARGV[2 * i + 3]
    local stored = redis.call('HGET', connection, device)
    local is_own = stored and string.sub(stored, 1, #session + 1) == session .. '|'
    if is_own or not stored or tonumber(string.sub(stored, -13)) <= now then
        redis.call('HSET', connection, device, (is_own and string.sub(stored, 1, -14) or session .. '|') .. expires)
        redis.call('EXPIRE', connection, 60)
        redis.call('SET', KEYS[3 * i + 2], '1', 'EX', 45)
        redis.call('SET', KEYS[3 * i + 3], string.format('%.0f', now), 'EX', 2592000)
        results[i + 1] = 0
    else
        results[i + 1] = 1
    end
end
return results
