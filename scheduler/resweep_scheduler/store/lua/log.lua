-- Rows of the attempt that owns the run, each stored once (by its sequence number within the attempt). Late rows of an
-- attempt whose end is recorded are taken too, as long as no other attempt followed. Where the sweep stops runs early,
-- the run is judged with every value of the metric, as if rows came one by one.
-- KEYS[1] run hash · args: run_id, attempt, nonce, writer (of several clients of the attempt, the one that may) | absent, first_seq, rows [[step, JSON, value of the metric | absent]],
--   summary (JSON) | absent, metric (best of this call) | absent,
--   latest [[number of the row, from 1 | 0 for the summary, value] | false, for each metric] | absent,
--   final (the script is over: it is not stopped any more) | absent
-- returns {hold, stop, accepted}
-- from → to: finished, failed → running (outside a sweep, after an unsure end) · sweep: its search is closed when the metric's target is reached
-- include: base, sweeps, runs, stopping
local rid, key = args.run_id, KEYS[1]
local run = load_run(rid)
local hold = hold_of_writer(run, args.attempt, args.nonce)
if given(args.writer) and redis.call('HGET', key, 'writer') ~= int(args.writer) then hold = 'stale' end
if hold ~= 'owner' and hold ~= 'ended' then return reply({ hold = hold, stop = run and run.stop or '', accepted = 0 }) end

local known = tonumber(run.seq) or 0
local seq, step, accepted = known, tonumber(run.step), 0
-- A batch that was held up while later ones were stored has an old summary, too.
local late = #args.rows > 0 and args.first_seq + #args.rows - 1 < seq
local rule = stopping_rule(run.sweep)
if hold == 'owner' then confirm(rid, run) end
if args.final and hold == 'owner' then
  run.over = '1'
  redis.call('HSET', key, 'over', run.over)
end
for i, row in ipairs(args.rows) do
  if args.first_seq + i - 1 > seq then
    redis.call('XADD', run_key(rid, 'history'), '*', 'step', int(row[1]), 'attempt', int(args.attempt), 'row', row[2])
    seq, accepted = args.first_seq + i - 1, accepted + 1
    if not step or row[1] > step then step = row[1] end
    if rule then
      local iteration, best = draw_point(run.sweep, rid, run, rule, row[1], row[3])
      if iteration and hold == 'owner' then judge(rid, run, rule, iteration, best) end
    end
  end
end
if accepted > 0 then redis.call('HSET', key, 'seq', int(seq), 'step', int(step)) end
if accepted > 0 and hold == 'ended' and redis.call('HGET', key, 'unsure') == '1' then
  -- Somebody else said that the script is over.
  local busy = tonumber(redis.call('HGET', key, 'ended')) - tonumber(run.claimed)
  redis.call('HINCRBY', key, 'busy_ms', int(math.min(0, -busy)))
  redis.call('HDEL', key, 'unsure', 'ended', 'exit_code')
  set_run_state(rid, run, 'running')
end
redis.call('HSET', key, 'heard', int(now))
if given(args.summary) and not late then redis.call('SET', run_key(rid, 'summary'), args.summary) end

-- The last value of each metric, and 1 if a row said it. Only where rows never said anything, the summary counts.
if given(args.latest) then
  local text = redis.call('HGET', key, 'values')
  local values = text and cjson.decode(text) or {}
  for i, found in ipairs(args.latest) do
    values[i] = values[i] or false
    local number = found and found[1]
    local of_summary = number == 0 and not late and not (values[i] and values[i][2] == 1)
    local of_new_row = number and number > 0 and args.first_seq + number - 1 > known
    if of_summary or of_new_row then values[i] = { found[2], of_summary and 0 or 1 } end
  end
  redis.call('HSET', key, 'values', cjson.encode(values))
end

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
