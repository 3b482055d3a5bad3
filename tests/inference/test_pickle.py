"""A pickled predictor is loaded again where it arrives, from the same model or not at all."""

import pickle
import shutil
from pathlib import Path

import pytest
from support.answered import TEXTS

from distilora.errors import ArtifactError, ConfigError
from distilora.inference.predictor import Predictor, load


def sent_on(predictor: Predictor) -> Predictor:
    return pickle.loads(pickle.dumps(predictor))  # noqa: S301 - our own


class TestPickled:
    def test_it_is_loaded_again(self, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(finished.parent)
        predictor = load(finished.name, "bf16", "cpu", abstain_below=0.9)
        predictor.strict = True
        monkeypatch.chdir(tmp_path)
        again = sent_on(predictor)
        assert (again.abstain_below, again.strict, again.backend.precision) == (0.9, True, "bf16")
        assert again(TEXTS[:3]) == predictor(TEXTS[:3])
        assert len(pickle.dumps(again)) < 4000

    def test_the_encoder_s_place_is_kept(
        self, finished: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(encoder.parent)
        predictor = load(finished, "fp32", "cpu", encoder=encoder.name)
        monkeypatch.chdir(tmp_path)
        assert sent_on(predictor)(TEXTS[0]) == predictor(TEXTS[0])

    def test_another_model_in_its_place(self, runs: dict[str, Path], tmp_path: Path) -> None:
        folder = shutil.copytree(runs["full"], tmp_path / "run")
        sent = pickle.dumps(load(folder, "fp32", "cpu"))
        shutil.rmtree(folder)
        shutil.copytree(runs["head"], folder)
        with pytest.raises(
            ArtifactError, match="holds another model than when the predictor was pickled; load it and pickle"
        ):
            pickle.loads(sent)  # noqa: S301 - our own

    def test_another_task_is_a_view_that_stays_here(self, finished: Path) -> None:
        predictor = load(finished, "fp32", "cpu")
        view = predictor.with_task(predictor.task)
        assert view.backend is predictor.backend
        assert view(TEXTS[:2]) == predictor(TEXTS[:2])
        with pytest.raises(ConfigError, match="it cannot be pickled"):
            pickle.dumps(view)
        sent_on(predictor)

    def test_one_of_no_folder(self, predictor: Predictor) -> None:
        made = Predictor(predictor.artifact, predictor.backend)
        with pytest.raises(ConfigError, match=r"in the worker call distilora\.load\('/.*/model'\)$"):
            pickle.dumps(made)
