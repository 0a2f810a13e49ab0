"""The lists of reference pictures and of regions: rows that come and go."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty
from bpy.types import Context, Event, Object, Operator

from ..bridge import pictures, regions
from ..bridge.errors import SceneError
from ..protocol.losses import ReferenceSettings, RegionSettings
from ..protocol.messages import MAX_PICTURES, MAX_REGIONS, JobRequest
from ..protocol.picture_codec import Picture


def references_of(context: Context) -> tuple[ReferenceSettings, ...]:
    """From where the panel's pictures were taken."""
    rows = context.window_manager.galatea.pictures
    return tuple(ReferenceSettings(azimuth=row.azimuth, elevation=row.elevation) for row in rows)


def pictures_of(context: Context) -> tuple[Picture, ...]:
    """The panel's pictures. Raises SceneError for one that cannot be used."""
    found = []
    for number, row in enumerate(context.window_manager.galatea.pictures, 1):
        image = bpy.data.images.get(row.image)
        if image is None:
            what = f"has no image {row.image} any more" if row.image else "is empty"
            raise SceneError(f"Row {number} of the reference pictures {what}: choose an image of this file, or remove the row.")
        found.append(pictures.read_picture(image))
    return tuple(found)


def regions_of(object: Object) -> tuple[RegionSettings, ...]:
    """What the object's regions are to become."""
    return tuple(RegionSettings(prompt=row.prompt.strip()) for row in object.galatea_regions)


def masks_of(object: Object) -> tuple:
    """A mask [V] for each of them. Raises SceneError for one that cannot be used."""
    return regions.read_masks(object, [row.group for row in object.galatea_regions])


def name_of(context: Context, request: JobRequest) -> str:
    """What a job's object is called: its prompt, or else its first picture."""
    rows = context.window_manager.galatea.pictures
    return request.prompt or (rows[0].image if rows else "")


class AddingPicture:
    @classmethod
    def poll(cls, context: Context) -> bool:
        full = len(context.window_manager.galatea.pictures) >= MAX_PICTURES
        if full:
            cls.poll_message_set(f"A job takes at most {MAX_PICTURES} pictures: remove one first.")
        return not full


class GALATEA_OT_add_picture(AddingPicture, Operator):
    bl_idname = "galatea.add_picture"
    bl_label = "Add Picture"
    bl_description = "Show the job a picture: an image that is in this file already"

    image: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        context.window_manager.galatea.pictures.add().image = self.image
        return {"FINISHED"}


class GALATEA_OT_open_picture(AddingPicture, Operator):
    bl_idname = "galatea.open_picture"
    bl_label = "Open Picture"
    bl_description = "Show the job a picture from a file on disk"

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_image: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: Context, event: Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> set[str]:
        try:
            image = bpy.data.images.load(self.filepath, check_existing=True)
        except RuntimeError as error:
            self.report({"ERROR"}, f"The file cannot be opened as a picture: {error}")
            return {"CANCELLED"}
        context.window_manager.galatea.pictures.add().image = image.name
        bpy.ops.ed.undo_push(message=self.bl_label)
        return {"FINISHED"}


class GALATEA_OT_remove_picture(Operator):
    bl_idname = "galatea.remove_picture"
    bl_label = "Remove Picture"
    bl_description = "Take this row out; the image stays in the file"

    index: IntProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        context.window_manager.galatea.pictures.remove(self.index)
        return {"FINISHED"}


class AddingRegion:
    @classmethod
    def poll(cls, context: Context) -> bool:
        active = context.view_layer.objects.active
        reason = ""
        if active is None or active.type != "MESH":
            reason = "Select a mesh object first: regions are parts of it."
        elif len(active.galatea_regions) >= MAX_REGIONS:
            reason = f"A job takes at most {MAX_REGIONS} regions: remove one first."
        cls.poll_message_set(reason)
        return not reason


class GALATEA_OT_add_region(AddingRegion, Operator):
    bl_idname = "galatea.add_region"
    bl_label = "Add Region"
    bl_description = "Let Refine change a vertex group only, or several, each with a prompt of its own if you like"

    def execute(self, context: Context) -> set[str]:
        active = context.view_layer.objects.active
        taken = {row.group for row in active.galatea_regions}
        group = active.vertex_groups.active
        active.galatea_regions.add().group = group.name if group is not None and group.name not in taken else ""
        bpy.ops.ed.undo_push(message=self.bl_label)
        return {"FINISHED"}


class GALATEA_OT_region_from_selection(AddingRegion, Operator):
    bl_idname = "galatea.region_from_selection"
    bl_label = "From Selection"
    bl_description = "Let Refine change the selected faces and vertices only: makes a vertex group of them, and a region of that"

    def execute(self, context: Context) -> set[str]:
        active = context.view_layer.objects.active
        try:
            group = regions.group_from_selection(active)
        except SceneError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        active.galatea_regions.add().group = group
        bpy.ops.ed.undo_push(message="Region from Selection")
        return {"FINISHED"}


class GALATEA_OT_remove_region(Operator):
    bl_idname = "galatea.remove_region"
    bl_label = "Remove Region"
    bl_description = "Take this row out; the vertex group stays. Without any region, Refine may change the whole object"

    index: IntProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        active = context.view_layer.objects.active
        if active is not None:
            active.galatea_regions.remove(self.index)
            bpy.ops.ed.undo_push(message=self.bl_label)
        return {"FINISHED"}


CLASSES = (
    GALATEA_OT_add_picture,
    GALATEA_OT_open_picture,
    GALATEA_OT_remove_picture,
    GALATEA_OT_add_region,
    GALATEA_OT_region_from_selection,
    GALATEA_OT_remove_region,
)
