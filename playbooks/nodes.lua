-- What every machine of a cluster needs before anything is installed: kernel parameters, and with `reach_by_name: true` the names
-- of all machines in /etc/hosts.
--
--   kplay playbooks/nodes.lua -i inventory/k8s-1-6.yaml

-- Machines that are to go may be dead (scale.lua).
local goes = pcall(hosts, "leaving")

play {
  name = "nodes",
  hosts = goes and "all:!leaving" or "all",
  -- A kernel parameter that one machine does not take reaches no other.
  serial = { 1, "100%" },
  any_error_stops = true,
  undo_on_failure = true,
  run = function(host)
    if host.vars:get("reach_by_name", false) then
      local entries = {}
      for _, other in ipairs(hosts("all")) do
        entries[other.vars.address] = { other.name }
      end
      host:hosts_file({ entries = entries })
    end
    host:role("node-tuning")
  end,
}
