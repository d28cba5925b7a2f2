"""GitHub's runner for one Docker action: metadata, inputs, file commands, workflow commands, masks, engines."""
