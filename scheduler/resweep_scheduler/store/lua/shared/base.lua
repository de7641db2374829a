-- What every script begins with: its arguments, the names of keys, the Redis clock, events.
-- ARGV[1] is one JSON object with named arguments; args.prefix is the project's key prefix. All keys of a project carry one
-- hash tag, so keys whose ids a script learns on the way (from queue or leases) live on the node that runs it.

local args = cjson.decode(ARGV[1])

local function run_key(rid, part)
  if part then return args.prefix .. 'run:' .. rid .. ':' .. part end
  return args.prefix .. 'run:' .. rid
end

local function sweep_key(sid, part)
  if part then return args.prefix .. 'sweep:' .. sid .. ':' .. part end
  return args.prefix .. 'sweep:' .. sid
end

local function redis_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local now = redis_ms()

local function int(number) return string.format('%.0f', number) end

-- What JSON null, a missing field and an empty string have in common: nothing is there.
local function given(value) return value ~= nil and value ~= false and value ~= cjson.null and value ~= '' end

local function reply(answer) return cjson.encode(answer) end

local function event(sid, kind, rid, run, before, after, data)
  if not given(sid) then return end
  redis.call('XADD', sweep_key(sid, 'events'), '*', 'kind', kind, 'run', rid or '',
    'attempt', run and run.attempt and int(run.attempt) or '', 'agent', run and run.agent or '',
    'before', before or '', 'after', after or '', 'data', data and cjson.encode(data) or '')
end
