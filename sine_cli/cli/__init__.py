"""The commands, one file each: parse, one workflow call, one report. Heavy imports stand inside functions."""
