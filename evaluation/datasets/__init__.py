"""Public data sets that tasks name as their own: on the hub, or in a folder that takes its place."""
