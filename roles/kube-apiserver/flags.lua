-- The flags of kube-apiserver: those that a role's parameters come to, and what becomes of flags that a release does not know.

local flags = {}

-- Flags that came to an end, or to another name, by the first minor release 1.N for which kplay writes them differently.
--   becomes: the flag that takes the value over; without it the flag is left out
--   why: stands in the file that would have had the flag
flags.history = {
  ["admission-control"] = { from = 10, becomes = "enable-admission-plugins", why = "deprecated since v1.10" },
  ["enable-swagger-ui"] = { from = 14, why = "without effect since v1.14: the API is described at /openapi/v2" },
  ["experimental-bootstrap-token-auth"] = { from = 8, becomes = "enable-bootstrap-token-auth", why = "no experiment any more since v1.8" },
  ["experimental-encryption-provider-config"] = { from = 13, becomes = "encryption-provider-config", why = "no experiment any more since v1.13" },
  ["insecure-port"] = { from = 24, why = "gone with v1.24; port 8080 is not served since v1.20" },
  ["kubelet-https"] = { from = 20, why = "without effect since v1.20, gone with v1.22: kubelets are always spoken to with TLS" },
  ["log-dir"] = { from = 26, why = "gone with v1.26: the journal has the log" },
  ["logtostderr"] = { from = 26, why = "gone with v1.26: logs always go to standard error" },
  ["target-ram-mb"] = { from = 23, why = "gone with v1.23, and long without effect" },
}

-- Returns N of a release such as v1.N.2.
function flags.minor(version)
  local minor = tonumber(version:match("^v?1%.(%d+)"))
  assert(minor, "`kubernetes_version` has to be a release such as v1.20.2, not `" .. version .. "`")
  return minor
end

-- Reads a flag as people write it: "--event-ttl=168h", "--profiling".
function flags.read(text)
  local name, value = text:match("^%-%-([%w-]+)=(.*)$")
  if not name then
    name, value = text:match("^%-%-([%w-]+)%s*(.-)$")
  end
  assert(name, "a flag begins with two dashes, unlike `" .. text .. "`")
  return { name = name, value = value ~= "" and value or nil }
end

-- Translates flags, a list of `{ name = …, value = … }`, for a release. Returns the flags, and a remark for each that is not what
-- was asked for.
function flags.translate(list, version)
  local minor, result, remarks, place = flags.minor(version), {}, {}, {}
  local function put(flag)
    if place[flag.name] then
      result[place[flag.name]] = flag
    else
      table.insert(result, flag)
      place[flag.name] = #result
    end
  end
  for _, flag in ipairs(list) do
    local entry = flags.history[flag.name]
    if not entry or minor < entry.from then
      put(flag)
    elseif entry.becomes then
      put({ name = entry.becomes, value = flag.value, sign = flag.sign, variable = flag.variable })
      table.insert(remarks, "--" .. flag.name .. " is --" .. entry.becomes .. " here: " .. entry.why .. ".")
    else
      local value = flag.value ~= nil and "=" .. tostring(flag.value) or ""
      table.insert(remarks, "--" .. flag.name .. value .. " is left out: " .. entry.why .. ".")
    end
  end
  return result, remarks
end

-- Returns a flag as it stands in a file.
function flags.show(flag, sign)
  if flag.value == nil then
    return "--" .. flag.name
  end
  -- A flag that is true or false takes its value behind `=` alone.
  local between = type(flag.value) == "boolean" and "=" or flag.sign or sign
  return "--" .. flag.name .. between .. tostring(flag.value)
end

return flags
