-- What playbooks see of Lua and of kplay. Everything that may wait is written here and not in Rust, since a coroutine cannot
-- be left through a Rust function. `rust` holds the primitives, none of which waits.
local rust = ...

local yield, yieldable = coroutine.yield, coroutine.isyieldable
local raw_xpcall, raw_error, raw_load = xpcall, error, load
local raw_tostring, raw_format, raw_ipairs, raw_pairs, raw_next = tostring, string.format, ipairs, pairs, next
local raw_concat, pack, raw_unpack, sort = table.concat, table.pack, table.unpack, table.sort
local rawget, rawset, getmetatable, setmetatable, type, select = rawget, rawset, getmetatable, setmetatable, type, select

-- Where kplay's own objects keep their number; no playbook can write such a name by accident.
local HOST, TASK, ERROR, VALUE = "\1host", "\1task", "\1error", "\1value"

local Host, Result, Vars, Map, List, Error = {}, {}, {}, {}, {}, {}
for name, class in raw_pairs({ host = Host, result = Result, vars = Vars, map = Map, list = List, error = Error }) do
  class.__metatable = "kplay " .. name
end

-- Waiting ------------------------------------------------------------------------------------------------------------------

-- Gives control to the scheduler until what is asked for is there. An error that came instead is raised here.
local function wait(kind, a, b)
  if not yieldable() then
    raw_error(rust.cannot_wait(kind, a, b), 0)
  end
  local failure = yield(kind, a, b)
  if failure then
    raw_error(failure, 0)
  end
end

-- Waits until all tasks of this host's run are done.
local function flush()
  while rust.open() do
    wait("tasks")
  end
end

-- Turning to another host sends what this one has queued so far: what comes next may depend on it.
local function turn(id)
  if rust.open_elsewhere(id) then
    flush()
  end
end

-- Results ------------------------------------------------------------------------------------------------------------------

local function read(result, key)
  local id = rawget(result, TASK)
  local done, value = rust.read(id, key)
  if not done then
    wait("result", id)
    done, value = rust.read(id, key)
  end
  return value
end

Result.__index = read
Result.__newindex = function(result, key) rust.refuse_write("a result", key) end
Result.__tostring = function(result) return "result of " .. rust.task_name(rawget(result, TASK)) end
Result.__len = function(result) rust.refuse_use(rawget(result, TASK), "has no length") end
Result.__call = function(result) rust.refuse_use(rawget(result, TASK), "is no function") end

-- Returns a result's one-word outcome in place of the result, and anything else as it is.
local function resolve(value)
  if getmetatable(value) == "kplay result" then
    if read(value, "failed") then return "failed" end
    if read(value, "skipped") then return "skipped" end
    return read(value, "changed") and "changed" or "ok"
  end
  return value
end

local function resolve_all(...)
  local values = pack(...)
  for index = 1, values.n do
    values[index] = resolve(values[index])
  end
  return raw_unpack(values, 1, values.n)
end

Result.__concat = function(left, right) return raw_tostring(resolve(left)) .. raw_tostring(resolve(right)) end

-- Hosts --------------------------------------------------------------------------------------------------------------------

local methods = {}

local function facts_of(host)
  local id = rawget(host, HOST)
  local facts = rust.facts(id)
  while not facts do
    wait("facts", id)
    facts = rust.facts(id)
  end
  return facts
end

Host.__index = function(host, key)
  local method = methods[key]
  if method then
    local id = rawget(host, HOST)
    turn(id)
    if key == "role" or key == "gather" then
      -- A tail call would hide from where these are called; here it is still to be seen.
      rust.mark_call(key)
    end
    return method
  elseif key == "facts" then
    return facts_of(host)
  elseif key == "vars" then
    return rust.vars(rawget(host, HOST))
  end
  rust.unknown_method(key)
end
Host.__newindex = function(host, key) rust.refuse_write("a host", key) end
Host.__tostring = function(host) return rawget(host, "name") end

methods.gather = function(host)
  local id = rust.host_of(host, "gather")
  flush()
  wait("gather", id)
  return facts_of(host)
end

methods.role = function(host, name, params, options)
  local id = rust.host_of(host, "role")
  local load_role = rust.find_role(name)
  if load_role then
    rust.define_role(name, load_role())
  end
  local run, checked, depth = rust.enter_role(id, name, params, options)
  local results = pack(run(host, checked))
  rust.leave_role(depth)
  return raw_unpack(results, 1, results.n)
end

methods.debug = function(host, ...) rust.say(rust.host_of(host, "debug"), "debug", raw_concat({ resolve_all(...) }, " ")) end
methods.warn = function(host, ...) rust.say(rust.host_of(host, "warn"), "warning", raw_concat({ resolve_all(...) }, " ")) end
methods.fail = function(host, message) rust.fail(rust.host_of(host, "fail"), raw_tostring(resolve(message))) end

-- Variables ----------------------------------------------------------------------------------------------------------------

local function get_variable(vars, name, default)
  local defined, value = rust.variable(rawget(vars, HOST), name, true)
  if not defined or value == nil then
    return default
  end
  return value
end

Vars.__index = function(vars, key)
  if key == "get" then
    return get_variable
  end
  local _, value = rust.variable(rawget(vars, HOST), key, false)
  rawset(vars, key, value)
  return value
end
Vars.__newindex = function(_, key) rust.refuse_write("`host.vars`", key) end

local function get_field(map, key, default)
  local value = rawget(map, key)
  if value == nil then
    return default
  end
  return value
end

Map.__index = function(map, key)
  if key == "get" then
    return get_field
  end
  return rust.missing_field(map, key)
end
List.__index = function(list, key)
  if type(key) == "number" then
    return nil
  end
  return rust.missing_field(list, key)
end

-- Errors -------------------------------------------------------------------------------------------------------------------

Error.__index = function(_, key) rust.unknown_error_field(key) end
Error.__tostring = function(err) return rust.show_error(rawget(err, ERROR)) end
Error.__concat = function(left, right) return raw_tostring(left) .. raw_tostring(right) end

local function flushed(...)
  flush()
  return ...
end

local function run_and_flush(f, ...)
  return flushed(f(...))
end

-- Runs `f` and waits for all tasks that it asked for, so that their failures are caught, too. What was asked for before is waited
-- for first: its failures are not this call's, and pass by.
local function protected(f, ...)
  flush()
  local depth = rust.role_depth()
  local results = pack(raw_xpcall(run_and_flush, rust.explain, f, ...))
  if not results[1] then
    local err = results[2]
    if rust.is_fatal(err) then
      raw_error(err, 0)
    end
    rust.leave_role(depth)
    local value = type(err) == "table" and rawget(err, VALUE)
    if value then
      results[2] = value[1]
    end
  end
  return results
end

local function pcall(f, ...)
  local results = protected(f, ...)
  return raw_unpack(results, 1, results.n)
end

local function xpcall(f, handler, ...)
  local results = protected(f, ...)
  if not results[1] then
    return false, handler(results[2])
  end
  return raw_unpack(results, 1, results.n)
end

-- Waiting for other hosts --------------------------------------------------------------------------------------------------

local function once(key, f)
  local state, value, id = rust.once(key, f)
  while state == "wait" do
    wait("once", id)
    state, value, id = rust.once(key, f)
  end
  if state == "run" then
    local depth = rust.role_depth()
    local ok, result = raw_xpcall(run_and_flush, rust.explain, f)
    if not ok then
      rust.leave_role(depth)
      rust.once_failed(id, result)
      raw_error(result, 0)
    end
    value = rust.once_done(id, result)
  end
  return value
end

local function barrier(name)
  rust.check_barrier(name)
  flush()
  wait("barrier", name)
end

local function run_to_end(f, ...)
  f(...)
  while rust.open() do
    wait("rest")
  end
end

-- What runs in a host's coroutine.
local function main(run, host)
  local ok, err = raw_xpcall(run_to_end, rust.explain, run, host)
  return "end", ok, err
end

-- Runs a playbook's file, or a function of its that must not wait.
local function load_playbook(chunk, ...)
  return raw_xpcall(chunk, rust.explain, ...)
end

-- The library --------------------------------------------------------------------------------------------------------------

-- Order of keys differs from run to run in plain Lua; here it never does.
local function before(a, b)
  local kind_a, kind_b = type(a), type(b)
  if kind_a ~= kind_b then
    return kind_a < kind_b
  elseif kind_a == "number" or kind_a == "string" then
    return a < b
  end
  return raw_tostring(a) < raw_tostring(b)
end

local function pairs(value)
  local class = getmetatable(value)
  if class == "kplay vars" then
    rust.all_variables(value, rawget(value, HOST))
  elseif class == "kplay result" or class == "kplay host" then
    rust.refuse_pairs(class)
  elseif type(value) ~= "table" then
    return raw_pairs(value)
  end
  local keys, count = {}, 0
  for key in raw_next, value do
    if not (type(key) == "string" and key:byte(1) == 1) then
      count = count + 1
      keys[count] = key
    end
  end
  sort(keys, before)
  local index = 0
  return function()
    index = index + 1
    local key = keys[index]
    if key ~= nil then
      return key, rawget(value, key)
    end
  end, value, nil
end

local function next(value, key)
  if key ~= nil then
    raw_error("`next` with a key has no fixed order; use `pairs`", 2)
  end
  return raw_next(value)
end

-- Modules of Lua code, found beside their users; each runs once for each folder of users.
local loaded, loading = {}, {}

local function requirer(folder, environment)
  return function(name)
    local key, chunk = rust.find_module(name, folder, environment)
    if loaded[key] == loading then
      raw_error("`require` goes round in a circle: " .. key .. " is being loaded already", 2)
    elseif loaded[key] == nil then
      loaded[key] = loading
      local value = chunk()
      loaded[key] = value == nil and true or value
    end
    return loaded[key]
  end
end

string.dump = nil
string.format = function(...) return raw_format(resolve_all(...)) end
table.concat = function(list, ...)
  local resolved = {}
  for index = 1, #list do
    resolved[index] = resolve(list[index])
  end
  return raw_concat(resolved, ...)
end
table.unpack = function(list, ...) return resolve_all(raw_unpack(list, ...)) end
math.randomseed(0)

local globals = {
  _VERSION = _VERSION, assert = assert, error = error, getmetatable = getmetatable, math = math, next = next, once = once,
  barrier = barrier, pairs = pairs, pcall = pcall, rawequal = rawequal, select = select, setmetatable = setmetatable,
  string = string, table = table, tonumber = tonumber, type = type, utf8 = utf8, xpcall = xpcall,
  os = { clock = os.clock, date = os.date, time = os.time },
  ipairs = function(list) return raw_ipairs(resolve(list)) end,
  print = function(...)
    local words = pack(resolve_all(...))
    for index = 1, words.n do
      words[index] = raw_tostring(words[index])
    end
    rust.say(nil, "info", raw_concat(words, " "))
  end,
  tostring = function(value) return raw_tostring(resolve(value)) end,
}
setmetatable(globals, { __index = function(_, key) rust.unknown_global(key) end, __metatable = "kplay globals" })

-- Makes the global environment of the files of one folder: the playbook's, or a role's.
local function environment(folder)
  local own = {}
  own.require = requirer(folder, own)
  own.load = function(text, name)
    if type(text) ~= "string" then
      raw_error("`load` takes a text", 2)
    end
    return raw_load(text, name or "=text", "t", own)
  end
  return setmetatable(own, {
    __index = globals,
    __newindex = function(_, key, value)
      if not rust.loading() then
        rust.refuse_global(key)
      end
      rawset(own, key, value)
    end,
    __metatable = "kplay globals",
  })
end

return {
  host = Host, result = Result, vars = Vars, map = Map, list = List, error = Error,
  methods = methods, globals = globals, environment = environment, load = load_playbook, main = main,
}
