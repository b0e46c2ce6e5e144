-- Brings all masters to another release of Kubernetes, one at a time, while clients go on working.
--
--   kplay playbooks/upgrade.lua -i inventory/hdss7.yaml -e kubernetes_version=v1.20.15 -e kubernetes_archive=FILE --check
--   kplay playbooks/upgrade.lua -i inventory/hdss7.yaml -e kubernetes_version=v1.20.15 -e kubernetes_archive=FILE
--
-- Then write the release into the inventory. The new release is unpacked beside the one in use. Master after master, the link is
-- turned, the configuration is rendered for that release, and the apiserver restarts. A master whose apiserver does not come up gets
-- back what it had, and the run stops. Run again after anything that stopped it: it goes on where masters stand.

local cluster = require "cluster"
local rolling = require "rolling"

require "preflight"

play {
  name = "the release, beside the one in use",
  hosts = "masters",
  any_error_stops = true,
  run = function(master)
    cluster.binaries(master, { "unpack" })
  end,
}

rolling.apiservers({
  name = "upgrade, one master at a time",
  prepare = function(master)
    cluster.binaries(master, { "link" })
    cluster.apiserver(master, { "configure" })
  end,
})

-- Controllers follow when no apiserver is older than they are.
play {
  name = "controllers, one master at a time",
  hosts = "masters",
  order = rolling.order,
  serial = 1,
  any_error_stops = true,
  undo_on_failure = true,
  run = function(master)
    rolling.controllers(master, { "configure", "serve", "check" })
  end,
}
