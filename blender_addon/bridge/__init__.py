"""The only place that reads meshes from the scene and writes them into it.

`collect` makes of an object what goes over the wire; `preview` shows a job in the scene and `finish` ends that;
`placement` and `prepare` are plain arithmetic that any thread may do. Nothing here keeps a reference to Blender's data
between two calls: undo and loading a file make references invalid, so all is found again by what is stored on the objects.
"""
