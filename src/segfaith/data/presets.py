"""Tables of mask values that data sets define: class names by value; `IGNORE` for values that belong to no class."""

from segfaith.constants import IGNORE

CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The 19 classes that Cityscapes evaluates (Cordts et al. 2016), in the order of its train ids, by `labelIds`."""

COCO = (
    ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    ("fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep"),
    ("cow", "elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", ""),
    ("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat"),
    ("baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife"),
    ("spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza"),
    ("donut", "cake", "chair", "couch", "potted plant", "bed", "", "dining table", "", ""),
    ("toilet", "", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven"),
    ("toaster", "sink", "refrigerator", "", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    ("toothbrush",),
)
"""COCO's 80 object classes (Lin et al. 2014) by category id, from 1; empty where an id is unused."""

PRESETS: dict[str, dict[int, str | int]] = {
    "cityscapes": {value: CITYSCAPES.get(value, IGNORE) for value in [*CITYSCAPES, *range(34)]},
    "coco91": {
        value: name for value, name in enumerate(("background", *(name for row in COCO for name in row))) if name
    },
}
"""Tables by the name that `[data] labels` gives. Values that a table leaves out are errors."""
