-- The record of a run's checkpoints: the one to go on from and, in `kept`, the ones before it, newest first.

local function load_checkpoint(rid)
  local text = redis.call('GET', run_key(rid, 'checkpoint'))
  return text and cjson.decode(text) or {}
end

local function save_checkpoint(rid, record) redis.call('SET', run_key(rid, 'checkpoint'), cjson.encode(record)) end

-- What is remembered of a checkpoint that is not the newest any more.
local function as_kept(record)
  return { path = record.path, step = record.step, attempt = record.attempt, saved_at = record.saved_at }
end
