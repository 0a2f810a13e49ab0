"""Small helps for filling in the panel: earlier prompts, and another seed."""

from __future__ import annotations

import random

from bpy.props import StringProperty
from bpy.types import Context, Menu, Operator

from .. import prompt_history


class GALATEA_OT_use_prompt(Operator):
    bl_idname = "galatea.use_prompt"
    bl_label = "Use Prompt"
    bl_description = "Put this prompt into the panel"

    prompt: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        context.window_manager.galatea.prompt = self.prompt
        return {"FINISHED"}


class GALATEA_OT_random_seed(Operator):
    bl_idname = "galatea.random_seed"
    bl_label = "Another Seed"
    bl_description = "Draw a random seed, for another object from the same words"

    def execute(self, context: Context) -> set[str]:
        context.window_manager.galatea.seed = random.randrange(2**31)
        return {"FINISHED"}


class GALATEA_MT_prompts(Menu):
    bl_label = "Earlier Prompts"

    def draw(self, context: Context) -> None:
        prompts = prompt_history.read()
        if not prompts:
            self.layout.label(text="What you make appears here")
        for prompt in prompts:
            text = prompt if len(prompt) <= 80 else prompt[:77] + "..."
            self.layout.operator("galatea.use_prompt", text=text).prompt = prompt


CLASSES = (GALATEA_OT_use_prompt, GALATEA_OT_random_seed, GALATEA_MT_prompts)
