-- A procedure is a playbook that does something, step by step, rather than bring hosts to a state. Doing it twice does it twice.
-- A forecast lists its steps and touches nothing.
--
--   local procedure = require "procedure"
--
--   procedure {
--     name = "restart everything",
--     { "stop nginx", function() … end },
--     { "start it again", function() … end },
--   }
--
-- Steps run on the controller, one after the other, and speak to hosts by `hosts(PATTERN)`. What a step returns as text is told.

return function(spec)
  play {
    name = spec.name,
    hosts = "localhost",
    run = function()
      for number, step in ipairs(spec) do
        print(number .. ". " .. step[1])
        local told = not check_mode and step[2]()
        if told then
          print("   " .. told)
        end
      end
    end,
  }
end
