"""Arrays and tensors as data."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules import ArrayDataModule, DataError, DigitsDataModule
from lit_models import LitLeNet, LitLinearRegression, LitMLP
from tests.helpers.trainers import quiet_trainer

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 3))
Y = np.arange(60) % 3
TEXT = np.array(["cat", "dog"])[Y % 2]


def test_a_table_is_float32_with_its_classes_in_their_order() -> None:
    data = ArrayDataModule(X, np.array([10, 2, 7])[Y])
    assert (data.task, data.num_outputs, data.class_names) == ("multiclass", 3, ["2", "7", "10"])
    assert (data.input_shape, data.in_features) == ((3,), 3)
    samples, _ = data.splits["train"]
    torch.testing.assert_close(samples.x, torch.from_numpy(X).float())
    assert samples.y.tolist() == [[2, 0, 1][label] for label in Y]
    assert {stage: len(split) for stage, split in data.splits.items()} == {"train": 43, "val": 5, "test": 12}
    assert data.statistics["mean"].shape == (3,)


@pytest.mark.parametrize(
    ("y", "options", "task", "num_outputs", "class_names"),
    [
        (Y, {}, "multiclass", 3, ["0", "1", "2"]),
        (Y % 2, {}, "binary", 1, ["0", "1"]),
        (Y % 2, {"task": "multiclass"}, "multiclass", 2, ["0", "1"]),
        (Y % 2 == 0, {}, "binary", 1, ["False", "True"]),
        (TEXT, {}, "binary", 1, ["cat", "dog"]),
        (TEXT.astype(object), {}, "binary", 1, ["cat", "dog"]),
        (TEXT.tolist(), {}, "binary", 1, ["cat", "dog"]),
        (torch.from_numpy(Y), {}, "multiclass", 3, ["0", "1", "2"]),
        (Y[:, None], {}, "multiclass", 3, ["0", "1", "2"]),
        (Y.astype(float), {"task": "multiclass"}, "multiclass", 3, ["0", "1", "2"]),
        (np.arange(60), {"task": "regression"}, "regression", 1, None),
        (X[:, 0], {}, "regression", 1, None),
        (X[:, :2], {}, "regression", 2, None),
        (torch.from_numpy(X[:, :1]).bfloat16(), {}, "regression", 1, None),
        (np.eye(3)[Y], {"task": "regression"}, "regression", 3, None),
    ],
)
def test_the_task_follows_from_the_targets(
    y: Any,  # noqa: ANN401
    options: dict[str, Any],
    task: str,
    num_outputs: int,
    class_names: list[str] | None,
) -> None:
    data = ArrayDataModule(X, y, **options)
    assert (data.task, data.num_outputs, data.class_names) == (task, num_outputs, class_names)
    targets = data.splits["train"].samples.y
    assert targets.dtype == (torch.float32 if class_names is None else torch.int64)
    assert targets.shape == ((60, num_outputs) if num_outputs > 1 and class_names is None else (60,))


@pytest.mark.parametrize(
    ("given", "shape", "dtype"),
    [
        (np.zeros((9, 5, 4), np.uint8), (1, 5, 4), torch.uint8),
        (np.zeros((9, 3, 5, 4), np.uint8), (3, 5, 4), torch.uint8),
        (torch.zeros(9, 3, 5, 4), (3, 5, 4), torch.float32),
        (np.zeros((9, 5, 4)), (1, 5, 4), torch.float32),
        (np.zeros((9, 5), np.uint8), (5,), torch.float32),
        (np.zeros((9, 5), bool), (5,), torch.float32),
        (np.zeros((9, 5), np.float16), (5,), torch.float32),
        (np.zeros((9, 64, 7, 3), np.float32)[:, :, :1], (64, 1, 3), torch.float32),
        ([[1, 2], [3, 4], [5, 6]] * 3, (2,), torch.float32),
    ],
)
def test_inputs_keep_their_kind(given: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:  # noqa: ANN401
    data = ArrayDataModule(given, np.arange(9) % 3)
    assert (data.input_shape, data.splits["train"].samples.x.dtype) == (shape, dtype)
    assert data.encode(np.zeros(shape)).dtype == dtype
    assert data.statistics["mean"].shape == (shape if len(shape) == 1 else (shape[0], 1, 1))


def test_images_give_the_batches_and_figures_of_digits() -> None:
    known = DigitsDataModule()
    samples = known.load()["train"]
    data = ArrayDataModule(samples.x.squeeze(1).numpy(), samples.y)
    assert data.class_names == known.class_names
    torch.testing.assert_close(data.statistics, known.statistics, rtol=0, atol=0)
    found = []
    for digits in (known, data):
        torch.manual_seed(0)
        model = LitMLP.for_data(digits, hidden=[16])
        trainer = quiet_trainer(max_epochs=1)
        trainer.fit(model, digits)
        found.append(trainer.test(model, digits, verbose=False))
    assert found[0] == found[1]


def test_a_network_for_images_learns_from_them() -> None:
    images = np.kron(np.eye(4, dtype=np.uint8)[np.arange(40) % 4].reshape(-1, 2, 2) * 255, np.ones((14, 14), np.uint8))
    data = ArrayDataModule(images, np.array(["a", "b", "c", "d"])[np.arange(40) % 4], batch_size=8)
    torch.manual_seed(0)
    model = LitLeNet.for_data(data)
    assert model.hparams["input_shape"] == [1, 28, 28]
    quiet_trainer(max_epochs=20).fit(model, data)
    found = data.predictions(model)
    assert list(found)[:2] == ["prediction", "probability_a"]
    assert list(found["prediction"]) == ["a", "b", "c", "d"] * 10


def test_splits_may_be_given() -> None:
    data = ArrayDataModule(X, TEXT, X_val=X[:4], y_val=TEXT[:4], X_test=X[:6], y_test=["dog"] * 6)
    assert {stage: len(split) for stage, split in data.splits.items()} == {"train": 60, "val": 4, "test": 6}
    assert data.splits["test"].samples.y.tolist() == [1] * 6


def test_the_arrays_are_copied() -> None:
    x, images = X.astype(np.float32), np.zeros((60, 2, 2), np.uint8)
    data, pictures = ArrayDataModule(x, Y), ArrayDataModule(images, Y)
    x[:], images[:] = 7, 7
    assert not (data.splits["train"].samples.x == 7).any()
    assert not (pictures.splits["train"].samples.x == 7).any()


def _fitted(data: ArrayDataModule) -> tuple[LitMLP, Any]:
    torch.manual_seed(0)
    model = LitMLP.for_data(data, hidden=[8])
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, data)
    return model, trainer


def test_a_checkpoint_is_safe_and_knows_its_arrays(workdir: object) -> None:
    data = ArrayDataModule(X, TEXT, X_val=X[:4], y_val=TEXT[:4], test_fraction=np.float64(0.3))
    model, trainer = _fitted(data)
    expected = trainer.test(model, data, verbose=False)
    trainer.save_checkpoint("model.ckpt")
    hparams = torch.load("model.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert {hparams[name] for name in ("X", "y", "X_val", "y_val", "X_test", "y_test")} == {None}

    def test(other: ArrayDataModule) -> Any:  # noqa: ANN401
        again = LitMLP.load_from_checkpoint("model.ckpt", weights_only=True)
        return quiet_trainer().test(again, other, ckpt_path="model.ckpt", verbose=False, weights_only=True)

    same: dict[str, Any] = {"X_val": X[:4], "y_val": TEXT[:4], "test_fraction": 0.3}
    assert test(ArrayDataModule(X, TEXT, **same)) == expected
    # Others are tested as a whole, with the classes of the training.
    more, labels = DRAW.normal(size=(20, 3)), np.array(["dog"] * 20)
    whole = test(ArrayDataModule(more, labels))
    assert trainer.test(model, data.new(more, labels), verbose=False) == whole
    probabilities = data.new(more).predictions(model)["probability_dog"]
    assert whole[0]["test_acc"] == pytest.approx((np.array(probabilities) >= 0.5).mean())
    with pytest.raises(DataError, match=r"^X: a sample is \(2,\), and this model was trained on \(3,\)\.$"):
        data.new(more[:, :2])
    with pytest.raises(DataError, match=r"^y: 'cow' is none of the training classes \(cat, dog\); give .*"):
        test(ArrayDataModule(more, ["cow", "dog"] * 10))


def test_several_values_are_predicted_in_their_own_units() -> None:
    y = np.stack([X @ [1, 2, 3], 100 + X @ [0, 0, 1]], 1)
    data = ArrayDataModule(X, y, batch_size=16)
    model = LitLinearRegression.for_data(data, lr=0.1)
    quiet_trainer(max_epochs=60).fit(model, data)
    new = data.new(X[:5])
    assert new.num_outputs == 2
    np.testing.assert_allclose(list(new.predictions(model)["prediction"]), y[:5], atol=0.5)


def test_the_fingerprint_is_that_of_the_content() -> None:
    def of(x: NDArray[Any], y: Any = Y) -> str:  # noqa: ANN401
        return ArrayDataModule(x, y).fingerprint

    assert of(X) == of(np.asfortranarray(X)) == of(X.copy())
    assert len({of(X), of(X[::-1]), of(X, Y[::-1]), of(X, TEXT)}) == 4


WRONG: NDArray[Any] = X.copy()
WRONG[3, 1] = np.nan
HUGE = np.where(np.isnan(WRONG), 1e300, WRONG)
VALUES = X[:, 0].copy()


@pytest.mark.parametrize(
    ("arrays", "options", "answer"),
    [
        ((), {}, r"ArrayDataModule takes X and y, arrays or tensors, from Python only; give another data module\."),
        ((X, Y[:30]), {}, r"y: X has 60 samples, and y has 30\."),
        ((X[:, 0], Y), {}, r"X: its shape is \(60,\); tables are .*; a single column is X\[:, None\]\."),
        ((X[None, None, None], Y), {}, r"X: its shape is \(1, 1, 1, 60, 3\); tables are .*"),
        ((X.astype(object), Y), {}, r"X: it holds objects of several types, not real numbers; convert it, or .*"),
        ((X * 1j, Y), {}, r"X: it holds complex numbers, not real numbers; .*"),
        ((TEXT[:, None], Y), {}, r"X: it holds text, not real numbers; .*"),
        ((WRONG, Y), {}, r"X: X\[3, 1\] is NaN; fill it in, or give a DataFrame to CSVDataModule, which does\."),
        ((HUGE, Y), {}, r"X: X\[3, 1\] is infinite, or too large for float32; fill it in, .*"),
        ((X[:0], Y[:0]), {}, r"X: it is empty\."),
        ((5, Y), {}, r"X: give an array or a tensor, not int\."),
        (([[1, 2], [3]], [1, 2]), {}, r"X: NumPy cannot read it \(.*\); give an array of numbers\."),
        ((np.zeros((60, 8, 9, 3), np.uint8), Y), {}, r"X: its shape is .*: give X\.transpose\(0, 3, 1, 2\)\."),
        ((X, Y * 0), {}, r"y: there is only one class, 0; give samples of two or more\."),
        ((X, np.where(Y == 1, np.nan, 1.5)), {}, r"y: y\[1\] is NaN; correct it, or leave this sample out\."),
        ((X, np.where(Y == 1, np.inf, 1.5)), {}, r"y: y\[1\] is infinite, or too large for float32; correct it, .*"),
        (
            (X, np.array([None if label == 1 else "a" for label in Y])),
            {},
            r"y: the target of sample 1 is missing; leave it out\.",
        ),
        ((X, np.eye(3)[Y]), {}, r"y: these are one-hot classes; give y\.argmax\(1\), or give `task='regression'` .*"),
        ((X, np.stack([Y, Y], 1)), {}, r"y: each sample has one class, \(N,\), and this is \(60, 2\); give .*"),
        ((X, np.arange(60)), {}, r"y: there are 60 classes in 60 samples; give `task='regression'` if .*"),
        ((X, Y), {"task": "binary"}, r"task='binary': y has 3 classes, not 2; give `task='multiclass'`\."),
        ((X, TEXT), {"task": "regression"}, r"task='regression': it does not fit targets of text; leave it out\."),
        ((X, None), {}, r"y: without targets there are only predictions; give them to train or test\."),
        ((X, Y), {"X_val": X}, r"y_val: inputs and targets go together; give both\."),
        ((X, Y), {"y_test": Y}, r"X_test: inputs and targets go together; give both\."),
        ((X, Y), {"X_val": X[:, :2], "y_val": Y}, r"X_val: a sample is .*\(2,\), and one of X is .*\(3,\)\."),
        ((X, Y), {"X_test": X[:2], "y_test": [1, 7]}, r"y_test: '7' is none of the training classes \(0, 1, 2\); .*"),
        ((X, VALUES), {"X_test": X[:2], "y_test": ["a", "b"]}, r"y_test: the targets are text, and .*"),
    ],
)
def test_what_cannot_be_used_is_one_line(arrays: tuple[Any, ...], options: dict[str, Any], answer: str) -> None:
    with pytest.raises(DataError, match=f"^{answer}$") as error:
        _ = ArrayDataModule(*arrays, **options).splits
    assert "\n" not in str(error.value)
