-- A script begins to log: inside a sweep under its agent's claim, outside as a new attempt of its own. Decides by the
-- table of resuming; a repeated call (same attempt, or same nonce) gives the same answer.
-- KEYS[1] run hash · args: run_id, resume: must | allow | auto | never | '' (unset), nonce, attempt | absent (outside a sweep),
--   config {key → JSON}, meta {name, group, notes, tags: each absent when not given}, project_runs (key)
-- returns {outcome: new | resumed | overwritten | must_not_exist | must_exist | held | stale, attempt, step, rows, seq}
-- from → to: outside a sweep: nothing, any → running · inside: none
-- include: base, sweeps, runs, stopping
local rid, key = args.run_id, KEYS[1]
local run = load_run(rid)
local inside = given(args.attempt)

local function answer(outcome)
  local values = redis.call('HMGET', key, 'attempt', 'step', 'seq')
  return reply({ outcome = outcome, attempt = tonumber(values[1] or 0), step = tonumber(values[2] or ''),
    rows = redis.call('XLEN', run_key(rid, 'history')), seq = tonumber(values[3] or 0) })
end

if inside and hold_of(run, args.attempt, args.nonce) ~= 'owner' then return answer('stale') end
if not inside and run and given(run.sweep) and OWNED[run.state] then return answer('held') end

local again = redis.call('HMGET', key, 'init_by', 'init_outcome')
if again[1] == args.nonce then return answer(again[2]) end

local exists = run ~= nil and run.initialised == '1'
if args.resume == 'must' and not exists then return answer('must_exist') end
if args.resume == 'never' and exists then return answer('must_not_exist') end
local outcome = not exists and 'new' or args.resume == '' and 'overwritten' or 'resumed'

if not inside then
  local attempt = (run and run.attempt or 0) + 1
  redis.call('HSET', key, 'attempt', int(attempt), 'nonce', args.nonce, 'claimed', int(now), 'seq', '0')
  -- This attempt has no lease that ran out; the one whose lease did is over.
  redis.call('HDEL', key, 'lapsed', 'was_preempting', 'assumed')
  if not run then redis.call('HSET', key, 'created', int(now)) end
  if not run or not given(run.sweep) then
    redis.call('HSET', key, 'state', 'running', 'reason', '')
    redis.call('HDEL', key, 'ended', 'exit_code', 'stop', 'unsure')
    redis.call('ZADD', args.project_runs, 'NX', int(now), rid)
  end
end
if outcome == 'overwritten' then
  -- Rows stay: those of this attempt win, step by step. What was made of them is another run's.
  redis.call('DEL', run_key(rid, 'config'), run_key(rid, 'meta'), run_key(rid, 'summary'), run_key(rid, 'checkpoint'))
  redis.call('HDEL', key, 'step', 'metric', 'values', 'notes')
  if run then forget_curve(run.sweep, rid) end
end
for name, value in pairs(args.config) do redis.call('HSET', run_key(rid, 'config'), name, value) end
for name, value in pairs(args.meta) do redis.call('HSET', run_key(rid, 'meta'), name, value) end
if inside then
  confirm(rid, run)
  redis.call('HDEL', key, 'over')
end
redis.call('HSET', key, 'initialised', '1', 'init_by', args.nonce, 'init_outcome', outcome, 'heard', int(now))
return answer(outcome)
