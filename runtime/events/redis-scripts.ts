import type { RedisClient } from "#runtime/redis.ts";

// Each script is one atomic step; where it says LOST, Redis does not hold what the caller put there. `redis-bus.ts` describes the protocol.

/**
 * How far the slowest of the consumers from ARGV[3] on and of the replicas in KEYS[3] has passed the stream KEYS[1]; nil when a consumer's group is
 * missing. A replica without its group will find that out and begin anew. Trims what all passed.
 */
const SLOWEST = `
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function slowest()
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
  if groups.err then return nil end
  local states = {}
  for _, flat in ipairs(groups) do
    local state = {}
    for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
    states[state['name']] = state
  end
  local waited = {}
  for i = 3, #ARGV do
    if not states[ARGV[i]] then return nil end
    waited[#waited + 1] = states[ARGV[i]]
  end
  for _, replica in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if states[replica] then waited[#waited + 1] = states[replica] end
  end
  local low, lowSeq
  for _, state in ipairs(waited) do
    local ms, seq = parts(state['last-delivered-id'])
    if state['pending'] > 0 then
      ms, seq = parts(redis.call('XPENDING', KEYS[1], state['name'])[2])
      if seq > 0 then seq = seq - 1 else ms = ms - 1; seq = 4294967295 end
    end
    if not low or ms < low or (ms == low and seq < lowSeq) then low = ms; lowSeq = seq end
  end
  if not low then return '0-0' end
  local id = string.format('%.0f-%.0f', math.max(low, 0), lowSeq)
  redis.call('XTRIM', KEYS[1], 'MINID', id)
  return id
end`;

/** KEYS stream, writers, replicas; ARGV source, token, consumers… Makes stream and groups where they are missing, and this writer the only one of its source. */
const ATTACH = `${SLOWEST}
for i = 3, #ARGV do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[i], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
slowest()
return 'OK'`;

/** KEYS stream, writers; ARGV source, token, next token, longest stream, channel, (type, event)… Appends, and gives the id of the last entry. */
const PUBLISH = `
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 'LOST' end
if redis.call('EXISTS', KEYS[1]) == 0 then return 'LOST' end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 'FULL' end
local id
for i = 6, #ARGV, 2 do
  id = redis.call('XADD', KEYS[1], '*', 't', ARGV[i], 'e', ARGV[i + 1])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PUBLISH', ARGV[5], KEYS[1])
return id`;

/** KEYS stream, writers, replicas; ARGV source, token, consumers… Gives the id of the last entry that every consumer passed. */
const PASSED = `${SLOWEST}
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 'LOST' end
return slowest() or 'LOST'`;

/**
 * KEYS members, leases…; ARGV owner, lease in ms, whether to give back what is more than a fair share, channel. Renews, takes what is free, gives the indexes held.
 */
const BALANCE = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 10)
local all = #KEYS - 1
local share = math.ceil(all / redis.call('ZCARD', KEYS[1]))
local mine, free = {}, {}
for i = 1, all do
  local owner = redis.call('GET', KEYS[i + 1])
  if owner == ARGV[1] then mine[#mine + 1] = i elseif not owner then free[#free + 1] = i end
end
if ARGV[3] == '1' and #mine > share then
  while #mine > share do redis.call('DEL', KEYS[table.remove(mine) + 1]) end
  redis.call('PUBLISH', ARGV[4], 'free')
end
while #mine < share and #free > 0 do mine[#mine + 1] = table.remove(free, 1) end
for _, i in ipairs(mine) do redis.call('SET', KEYS[i + 1], ARGV[1], 'PX', ARGV[2]) end
return mine`;

/** KEYS members, leases…; ARGV owner, channel. Gives all back. */
const LEAVE = `
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
redis.call('PUBLISH', ARGV[2], 'free')
return 'OK'`;

/**
 * KEYS streams…, leases…; ARGV consumer, owner, most entries of each stream, whether to claim. With that, what was handed out and not acknowledged comes first,
 * whoever held it.
 * Gives (index, entries)… of the streams whose lease the owner holds: nobody else can be given anything of them.
 */
const TAKE = `
local out = {}
local n = #KEYS / 2
for i = 1, n do
  if redis.call('GET', KEYS[n + i]) == ARGV[2] then
    local entries, missing = {}, false
    if ARGV[4] == '1' then
      local claimed = redis.pcall('XAUTOCLAIM', KEYS[i], ARGV[1], ARGV[2], 0, '0-0', 'COUNT', ARGV[3])
      if claimed.err then missing = true else entries = claimed[2] end
    end
    if not missing then
      if #entries == 0 then
        local got = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[i], '>')
        if got and not got.err then entries = got[1][2] end
      end
      if #entries > 0 then out[#out + 1] = i; out[#out + 1] = entries end
    end
  end
end
return out`;

/** KEYS streams…; ARGV consumer, then for each stream how many entries and their ids. */
const ACKNOWLEDGE = `
local at = 2
for i = 1, #KEYS do
  local count = tonumber(ARGV[at])
  redis.call('XACK', KEYS[i], ARGV[1], unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
return 'OK'`;

const TIME = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`;

/** KEYS replicas, holder, streams…; ARGV replica, owner, lease in ms. Makes the groups of a new replica, which begin with what comes from now on. */
const JOIN = `${TIME}
for i = 3, #KEYS do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '$', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'OK'`;

/**
 * KEYS replicas, holder, streams…; ARGV replica, owner, lease in ms. Says that the replica lives. LOST: it was dropped, or a group of it is gone. HELD: another process
 * has the same one.
 */
const BEAT = `${TIME}
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then return 'HELD' end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 'LOST' end
for i = 3, #KEYS do
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[i])
  local found = false
  if not groups.err then
    for _, flat in ipairs(groups) do
      for f = 1, #flat, 2 do
        if flat[f] == 'name' and flat[f + 1] == ARGV[1] then found = true end
      end
    end
  end
  if not found then return 'LOST' end
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'OK'`;

/** KEYS replicas, streams…; ARGV replica. Nobody waits for it any more. */
const FORGET = `
for i = 2, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[i], ARGV[1]) end
return redis.call('ZREM', KEYS[1], ARGV[1])`;

/** KEYS replicas, streams…; ARGV how long one may be silent in ms. Drops the replicas that were silent for longer, and gives them. */
const DROP = `${TIME}
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now - ARGV[1]))
for _, replica in ipairs(gone) do
  for i = 2, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[i], replica) end
  redis.call('ZREM', KEYS[1], replica)
end
return gone`;

type Reply = string | number | Buffer | Reply[] | null;
type Run = (keyCount: number, ...args: (string | number | Buffer)[]) => Promise<Reply>;

/** The scripts as commands of one connection; each call sends at once, so calls keep their order. */
export interface Scripts {
  readonly attach: Run;
  readonly publish: Run;
  readonly passed: Run;
  readonly balance: Run;
  readonly leave: Run;
  readonly join: Run;
  readonly beat: Run;
  readonly drop: Run;
  readonly forget: Run;
  readonly acknowledge: Run;
  /** Answers in bytes. */
  readonly take: Run;
}

/** Makes the scripts known to a connection. A server that forgot them gets them again. */
export function scriptsOf(client: RedisClient): Scripts {
  const define = (name: string, lua: string, suffix = ""): Run => {
    client.defineCommand(name, { lua });
    const commands = client as unknown as Record<string, Run>;
    return async (...args) => (commands[`${name}${suffix}`] as Run).apply(client, args);
  };
  return {
    attach: define("soukAttach", ATTACH),
    publish: define("soukPublish", PUBLISH),
    passed: define("soukPassed", PASSED),
    balance: define("soukBalance", BALANCE),
    leave: define("soukLeave", LEAVE),
    join: define("soukJoin", JOIN),
    beat: define("soukBeat", BEAT),
    drop: define("soukDrop", DROP),
    forget: define("soukForget", FORGET),
    acknowledge: define("soukAcknowledge", ACKNOWLEDGE),
    take: define("soukTake", TAKE, "Buffer"),
  };
}
