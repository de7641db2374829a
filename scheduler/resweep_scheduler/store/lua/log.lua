-- Rows of the attempt that owns the run, each stored once (by its sequence number within the attempt). Late rows of an
-- attempt whose end is recorded are taken too, as long as no other attempt followed.
-- KEYS[1] run hash · args: run_id, attempt, nonce, first_seq, rows [[step, JSON]], summary (JSON) | absent, metric | absent
-- returns {hold, stop, accepted}
-- from → to: none · sweep: its search is closed when the metric's target is reached
-- include: base, sweeps, runs
local rid, key = args.run_id, KEYS[1]
local run = load_run(rid)
local hold = hold_of(run, args.attempt, args.nonce)
if hold ~= 'owner' and hold ~= 'ended' then return reply({ hold = hold, stop = run and run.stop or '', accepted = 0 }) end

local seq, step, accepted = tonumber(run.seq) or 0, tonumber(run.step), 0
-- A batch that was held up while later ones were stored has an old summary, too.
local late = #args.rows > 0 and args.first_seq + #args.rows - 1 < seq
for i, row in ipairs(args.rows) do
  if args.first_seq + i - 1 > seq then
    redis.call('XADD', run_key(rid, 'history'), '*', 'step', int(row[1]), 'attempt', int(args.attempt), 'row', row[2])
    seq, accepted = args.first_seq + i - 1, accepted + 1
    if not step or row[1] > step then step = row[1] end
  end
end
if accepted > 0 then redis.call('HSET', key, 'seq', int(seq), 'step', int(step)) end
redis.call('HSET', key, 'heard', int(now))
if hold == 'owner' then confirm(rid, run) end
if given(args.summary) and not late then redis.call('SET', run_key(rid, 'summary'), args.summary) end

local function better(goal, value, than)
  if goal == 'maximize' then return value > than end
  return value < than
end

if given(args.metric) and given(run.sweep) then
  local sweep = redis.call('HMGET', sweep_key(run.sweep), 'metric_goal', 'metric_target', 'closed')
  local value = tonumber(args.metric)
  if not given(run.metric) or better(sweep[1], value, tonumber(run.metric)) then
    redis.call('HSET', key, 'metric', args.metric)
  end
  if given(sweep[2]) and not holds_back(sweep[3]) and not better(sweep[1], tonumber(sweep[2]), value) then
    close_search(run.sweep, 'target')
    event(run.sweep, 'target', rid, run, run.state, run.state, { metric = args.metric })
    settle_sweep(run.sweep)
  end
end
return reply({ hold = hold, stop = run.stop, accepted = accepted })
