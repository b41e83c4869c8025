-- connect: registers sessions that begin; of two sessions of a device the one that began later wins.
--
-- Of the source document: online, connection and lastseen, each with its time to live. Added: a field for each device,
-- because a user has several; the session in it, and when it began, so that nobody overwrites a newer one, not even who
-- is registered long after its beginning; and the key nonce, because a Hello that was overheard must not open a second
-- session.
--
-- KEYS, four for each session, all in the slot of {uid} (32 hexadecimal digits):
--   connection:{uid}     HASH device -> "edge_id|boot|session|began.expires" (ms); 60 s; written by connect and refresh
--   online:{uid}         "1"; 45 s; written by connect and refresh
--   lastseen:{uid}       Unix time in ms; 30 days; written by connect, refresh and bye
--   nonce:{uid}:<nonce>  "edge_id|boot|session" that used the nonce of its Hello; 120 s; written by connect
-- A value ends with the 13 digits of its expiry; refresh, when it registers a session anew, does not know when it began.
-- ARGV: "edge_id|boot|" of the edge, when this was asked for (Unix time in ms), then for each session: device, session
-- (16 hexadecimal digits), how long ago it began (ms).
-- Source of times: the server's clock. Source of everything else: svc_edge, through Track.
--
-- Returns for each session: "" when it is registered; "!" when another session has used its nonce; else the value of
-- the field that it replaced. The nonce knows the session that used it, so a call may be repeated, and a repeated one
-- no longer wins over a session that came after the first. What was asked for more than 35 s ago changes nothing:
-- nobody waits for it any more, and it would end a session that came meanwhile. So does what began more than 1 s before
-- the live session that stands there: its edge hears so when it refreshes.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local is_late = now - tonumber(ARGV[2]) > 35000
local results = {}
for i = 0, #KEYS / 4 - 1 do
    local connection, device = KEYS[4 * i + 1], ARGV[3 * i + 3]
    local session = ARGV[1] .. ARGV[3 * i + 4]
    local began = now - tonumber(ARGV[3 * i + 5])
    local user = not is_late and redis.call('SET', KEYS[4 * i + 4], session, 'NX', 'GET', 'EX', 120)
    local stored = redis.call('HGET', connection, device)
    local is_other = stored and string.sub(stored, 1, #session + 1) ~= session .. '|'
    local is_live = is_other and tonumber(string.sub(stored, -13)) > now
    if is_late then
        results[i + 1] = ''
    elseif user and user ~= session then
        results[i + 1] = '!'
    elseif is_live and (user or tonumber(string.match(stored, '|(%d+)%.%d+$') or 0) > began + 1000) then
        results[i + 1] = ''
    else
        results[i + 1] = is_other and stored or ''
        redis.call('HSET', connection, device, session .. string.format('|%.0f.%.0f', began, now + 60000))
        redis.call('EXPIRE', connection, 60)
        redis.call('SET', KEYS[4 * i + 2], '1', 'EX', 45)
        redis.call('SET', KEYS[4 * i + 3], string.format('%.0f', now), 'EX', 2592000)
    end
end
return results
