-- presence: reads whether users are online, and when they were last seen.
--
-- Of the source document: GET online and the display of lastseen, for one user at a time. Added: many users in one call,
-- and how long an answer still holds, so that watchers are told when nobody renews it: a key that ends tells nobody.
--
-- KEYS, two for each user, both in the slot of {uid} (32 hexadecimal digits):
--   online:{uid}    "1"; 45 s; written by connect and refresh
--   lastseen:{uid}  Unix time in ms; 30 days; written by connect, refresh and bye
-- ARGV: none.
-- Source of times: the server's clock.
--
-- Returns for each user, one after the other: for how many ms more it is online (0 when it is not), when it was last
-- seen (0 when that is not known: for 30 days it was not, or the server has lost its memory), and how long ago that is.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local results = {}
for i = 0, #KEYS / 2 - 1 do
    local seen = tonumber(redis.call('GET', KEYS[2 * i + 2]) or '0')
    results[3 * i + 1] = math.max(redis.call('PTTL', KEYS[2 * i + 1]), 0)
    results[3 * i + 2] = seen
    results[3 * i + 3] = math.max(now - seen, 0)
end
return results
