import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame


@given(
    arrays.arrays(
        arrays.floating_dtypes(sizes=(32, 64)) | arrays.integer_dtypes() | arrays.boolean_dtypes(),
        arrays.array_shapes(min_dims=0, min_side=0),
    )
)
def test_arrays_survive_json_bit_for_bit(array):
    back = decode_array(json.loads(json.dumps(encode_array(array))))
    assert back.shape == array.shape
    assert back.dtype.kind == array.dtype.kind
    assert back.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_single_precision_halves_the_text():
    array = np.linspace(0, 1, 300)
    assert len(encode_array(array, np.float32)["base64"]) * 2 == len(encode_array(array)["base64"])
    np.testing.assert_allclose(decode_array(encode_array(array, np.float32)), array, rtol=1e-7)


def test_text_is_no_array():
    with pytest.raises(TypeError, match="only numbers"):
        encode_array(["a"])


def test_tables_survive_json_with_missing_values():
    frame = pd.DataFrame({"run_id": ["a", None], "loss": [0.1, np.nan], "params": [1e6, 2e6]})
    back = decode_frame(json.loads(json.dumps(encode_frame(frame), allow_nan=False)))
    assert back["loss"].dtype == float
    assert np.isnan(back["loss"][1])
    assert back["run_id"][0] == "a"
    assert back["run_id"].isna().tolist() == [False, True]
    assert back["params"].tolist() == [1e6, 2e6]
