-- Passes of a rotation: what all masters share is changed in a file of the controller, brought to one master after the other, and
-- has to be the same on all of them before the next pass begins. A rotation that was stopped is gone on with by running it again:
-- the controller's file says how far it is.

local rolling = require "rolling"

local rotation = {}

-- Declares a pass.
--   name               what it does
--   advance()          changes the controller's file, if this pass is the next; returns what it did, to be told
--   bring(master)      writes the master's files
--   shared(master)     the paths that have to be the same on all masters afterwards
function rotation.pass(spec)
  play {
    name = spec.name,
    hosts = "localhost",
    any_error_stops = true,
    run = function()
      local told = spec.advance()
      if told then
        print(told)
      end
    end,
  }
  rolling.apiservers({
    name = spec.name .. ", one master at a time",
    prepare = spec.bring,
    run = function(master)
      rolling.controllers(master, { "serve", "check" })
    end,
  })
  play {
    name = spec.name .. ": the same on all masters",
    hosts = "localhost",
    any_error_stops = true,
    run = function(controller)
      local usual, first = {}, nil
      for _, master in ipairs(hosts("masters")) do
        for _, path in ipairs(spec.shared(master)) do
          local found = master:stat({ path = path })
          local digest = found.exists and found.digest or "nothing"
          usual[path] = usual[path] or digest
          first = first or master.name
          if digest ~= usual[path] then
            controller:fail(path .. " is not the same on " .. first .. " and " .. master.name .. ": the rotation goes no further. Run it again")
          end
        end
      end
    end,
  }
end

return rotation
