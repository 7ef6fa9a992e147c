"""What a trace goes past."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp

import zoo
from drops import single
from exactness import TIGHT, photograph, scattered_images, target
from segfaith.errors import SampleError
from segfaith.incremental.scoring import scorer_for
from segfaith.models.wrapping import wrap
from segfaith.scores import Scalar


def test_a_library_model_that_checks_its_inputs_size_is_traced() -> None:
    """segmentation_models.pytorch asks whether 32 divides the image's size; the model itself goes on asking."""
    module = zoo.randomised(smp.FPN("resnet18", encoder_weights=None, classes=4)).eval()
    model, size = wrap(module), (64, 64)
    image, region = photograph(size), target(size, "patch")
    scorer, altered = scorer_for(model, image, region, Scalar(1)), scattered_images(image)
    assert scorer.path == "incremental"
    expected = [single(model, one, region, 1) for one in altered]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scorer.score(altered).numpy(), expected, rtol=0, atol=TIGHT)
    with pytest.raises(SampleError, match=r"divisible by 32.*say pad = 32"):
        scorer_for(model, photograph((64, 60)), target((64, 60), "patch"), Scalar(1)).score(photograph((64, 60))[None])
