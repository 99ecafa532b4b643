"""The synthetic world: the same everywhere, balanced, geometrically right, and with actions that are what they say."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import sample_of

from layerlock import draws
from layerlock.data import ClipConfig, Source
from layerlock.data.motion import ACTIONS, State, labels, mirrored, perform
from layerlock.data.render import TAN_HALF_VIEW, render
from layerlock.data.scene import Body, Scene, Texture, build_scene
from layerlock.data.synthetic import SyntheticSource, render_clip
from layerlock.errors import LayerlockError

GOLDEN = Path(__file__).parent / "golden_world.npz"
STATE = State(
    along_x=0.4,
    along_y=0.6,
    along_z=0.5,
    gap=0.4,
    sway=2.0,
    bearing=1.0,
    yaw=0.3,
    apex=1.2,
    contact=0.6,
    stretch=0.5,
    rising=True,
    clockwise=False,
)
SECOND = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)


def small_clip(seed: int, index: int) -> np.ndarray:
    return render_clip(seed, index, frames=3, height=16, width=16, fps=3).video_tchw.numpy()


def test_a_clip_is_a_function_of_seed_and_index_alone() -> None:
    alone = render_clip(3, 7, frames=4, height=32, width=32)
    for index in (9, 2):
        other = render_clip(3, index, frames=4, height=32, width=32)
        assert not torch.equal(other.video_tchw, alone.video_tchw)
    again = render_clip(3, 7, frames=4, height=32, width=32)
    assert torch.equal(again.video_tchw, alone.video_tchw)
    assert torch.equal(again.depth_thw, alone.depth_thw)
    assert not torch.equal(render_clip(4, 7, frames=4, height=32, width=32).video_tchw, alone.video_tchw)


def test_pixels_stay_within_one_grey_level_of_the_stored_ones() -> None:
    golden = np.load(GOLDEN)
    now = np.stack([small_clip(0, index) for index in range(len(ACTIONS))])
    assert np.abs(now.astype(int) - golden["video"].astype(int)).max() <= 1
    assert labels(0, torch.arange(26)).tolist() == golden["label"].tolist()


def test_frames_do_not_depend_on_how_many_are_drawn() -> None:
    long, short = (render_clip(0, 5, frames=n, height=24, width=24) for n in (9, 5))
    assert torch.equal(long.video_tchw[2:7], short.video_tchw)


def test_labels_are_balanced_and_in_no_fixed_order() -> None:
    label_b = labels(1, torch.arange(13 * 50))
    assert label_b.bincount().tolist() == [50] * 13
    assert len({tuple(row.tolist()) for row in label_b.reshape(50, 13)}) == 50
    assert torch.equal(labels(1, torch.tensor([40, 3])), label_b[[40, 3]])
    assert tuple(sorted(ACTIONS)) == ACTIONS
    assert len(ACTIONS) >= 12


def test_no_moment_tells_the_action() -> None:
    """Far from time 0 too, where everybody is has the same distribution under every action (Kolmogorov-Smirnov)."""
    time_t = torch.tensor([-0.5, 0.7], dtype=torch.float64)
    rows_by_action: dict[str, list[torch.Tensor]] = {action: [] for action in ACTIONS}
    for u in draws.uniform(0, "test", torch.arange(700), 8).tolist():
        turn = [2 * math.pi * value for value in u[3:7]]
        state = replace(STATE, along_x=u[0], along_y=u[1], along_z=u[2], rising=u[7] < 0.5, clockwise=u[7] % 0.5 < 0.25)
        state = replace(state, gap=turn[0], sway=turn[1], bearing=turn[2], yaw=turn[3])
        for action, rows in rows_by_action.items():
            moved = perform(action, state, time_t)
            partner, post = moved.partner_t3 - moved.actor_t3, moved.post_t3 - moved.actor_t3
            facing = torch.stack([moved.yaw_t.cos(), moved.yaw_t.sin()], dim=1)
            rows.append(torch.cat([moved.actor_t3, partner, post, facing], dim=1))
    stays_nf = torch.stack(rows_by_action["stays"]).flatten(1).numpy()
    for action, rows in rows_by_action.items():
        for column, expected in zip(torch.stack(rows).flatten(1).numpy().T, stays_nf.T, strict=True):
            assert ks_distance(column, expected) < 1.95 * math.sqrt(2 / 700), action


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    every = np.sort(np.concatenate([a, b]))
    # equal numbers computed two ways differ in the last bits: compare just above each of them
    below = [np.searchsorted(np.sort(x), every + 1e-9, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.mark.parametrize(
    ("action", "axis", "sign"),
    [
        ("moves_left", 0, -1),
        ("moves_right", 0, 1),
        ("moves_up", 1, 1),
        ("moves_down", 1, -1),
        ("moves_toward", 2, -1),
        ("moves_away", 2, 1),
    ],
)
def test_moving_goes_one_way_and_starts_over(action: str, axis: int, sign: int) -> None:
    step_t3 = perform(action, STATE, SECOND).actor_t3.diff(dim=0)
    assert (sign * step_t3[:, axis] > 0).sum() >= len(step_t3) - 1
    assert step_t3[:, [other for other in range(3) if other != axis]].abs().max() < 1e-12


def test_actions_do_what_their_names_say() -> None:
    bounce = perform("bounces", STATE, SECOND).actor_t3[:, 1]
    assert 0 <= bounce.min() < 0.1
    assert bounce.max() <= STATE.apex
    falling = bounce.diff().diff()[bounce[1:-1] > 0.15]
    torch.testing.assert_close(falling, falling[:1].expand(len(falling)), rtol=1e-6, atol=1e-9)
    collide = perform("collides", STATE, SECOND)
    gap = (collide.partner_t3 - collide.actor_t3).norm(dim=1)
    assert gap.min() == pytest.approx(STATE.contact, abs=0.03)
    assert gap.max() > STATE.contact + 0.3
    orbit = perform("orbits", STATE, SECOND)
    radius = (orbit.partner_t3 - orbit.actor_t3).norm(dim=1)
    assert radius.std() < 1e-9
    assert (orbit.actor_t3[0] - orbit.actor_t3[50]).norm() > 0.5
    behind = perform("passes_behind", STATE, SECOND)
    offset = (behind.actor_t3 - behind.post_t3)[:, 0]
    assert (offset.max() - offset.min()) > 0.8
    assert behind.post_t3.std(dim=0).max() < 1e-12
    still = perform("stays", STATE, SECOND)
    assert still.actor_t3.std(dim=0).max() < 1e-12
    assert still.yaw_t.std() < 1e-12
    left, right = (perform(name, STATE, SECOND).yaw_t.diff() for name in ("turns_left", "turns_right"))
    assert (left > 0).all()
    assert torch.allclose(left, -right)


def test_a_mirror_swaps_left_and_right_only() -> None:
    names = {ACTIONS[label]: ACTIONS[mirrored(label)] for label in range(len(ACTIONS))}
    changed = {name: other for name, other in names.items() if name != other}
    assert changed == {
        "moves_left": "moves_right",
        "moves_right": "moves_left",
        "turns_left": "turns_right",
        "turns_right": "turns_left",
    }


def brute_force_depth(scene: Scene, frame: int, u: float, v: float) -> float:
    """Walks along one ray until it is inside a body or outside the room."""
    eye, view = scene.eye_t3[frame].numpy(), scene.view_t33[frame].numpy()
    distance = np.arange(0.3, 12, 0.002)
    point_n3 = eye + distance[:, None] * (view @ np.array([u, v, 1.0]))
    stop_n = np.zeros(len(distance), dtype=bool)
    for body in (*scene.bodies, scene.room):
        local_n3 = (point_n3 - body.centre_t3[frame].numpy()) @ body.turn_t33[frame].numpy() / np.array(body.half)
        inside_n = (local_n3**2).sum(1) < 1 if body.is_round else np.abs(local_n3).max(1) < 1
        stop_n |= ~inside_n if body is scene.room else inside_n
    return float(distance[stop_n.argmax()])


def test_depth_agrees_with_walking_along_the_rays() -> None:
    time_t = torch.tensor([-0.4, 0.3], dtype=torch.float64)
    height, width, differences = 20, 30, []
    for index in range(6):
        scene = build_scene(11, index, time_t)
        depth_thw = render(scene, height, width)[1]
        for frame in range(2):
            for y in range(1, height, 4):
                for x in range(1, width, 4):
                    u = (x + 0.5 - width / 2) * 2 * TAN_HALF_VIEW / height
                    v = -(y + 0.5 - height / 2) * 2 * TAN_HALF_VIEW / height
                    differences.append(float(depth_thw[frame, y, x]) - brute_force_depth(scene, frame, u, v))
    # a ray that cuts off less of an edge than a step of the walk is the one thing that may differ
    assert sum(abs(difference) > 0.0025 for difference in differences) <= len(differences) / 200


def plain_body(z: float, half: float, colour: float, is_round: bool) -> Body:
    grey = (colour, colour, colour)
    still = (0.0, 0.0, 0.0)
    return Body(
        centre_t3=torch.tensor([[0.0, 0.0, z]], dtype=torch.float64),
        turn_t33=torch.eye(3, dtype=torch.float64)[None],
        half=(half, half, half),
        is_round=is_round,
        texture=Texture(dark=grey, bright=grey, waves=(still, still, still), phases=still),
    )


@pytest.mark.parametrize("turned_around", [False, True])
def test_the_nearer_body_hides_the_farther_one(turned_around: bool) -> None:
    near, far = plain_body(2.0, 0.2, 0.9, True), plain_body(4.0, 0.8, 0.1, False)
    scene = Scene(
        label=0,
        eye_t3=torch.zeros(1, 3, dtype=torch.float64),
        view_t33=torch.eye(3, dtype=torch.float64)[None],
        light=(0.0, 1.0, 0.0),
        room=plain_body(0.0, 6.0, 0.5, False),
        floor=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        bodies=(far, near) if turned_around else (near, far),
    )
    rgb_tchw, depth_thw = render(scene, 65, 65)
    assert float(depth_thw[0, 32, 32]) == pytest.approx(1.8)
    assert float(depth_thw[0, 32, 42]) == pytest.approx(3.2)
    assert float(depth_thw[0, 32, 1]) == pytest.approx(6.0)
    assert rgb_tchw[0, 0, 32, 32] > 2 * rgb_tchw[0, 0, 32, 42]
    silhouette = (depth_thw[0, 32] < 2).sum().item()
    assert silhouette == pytest.approx(2 * 65 / 2 * 0.2 / math.sqrt(4 - 0.04) / TAN_HALF_VIEW, abs=1.5)


def test_the_source_is_picklable_and_pure() -> None:
    source = SyntheticSource(clip=ClipConfig(frames=4, size=24), seed=5, videos=100, targets=("depth", "label"))
    assert isinstance(source, Source)
    assert len(source) == 100
    sample, again = sample_of(source, 42), sample_of(pickle.loads(pickle.dumps(source)), 42)
    assert torch.equal(sample.video_tchw, again.video_tchw)
    assert sample.targets["label"] == again.targets["label"]
    assert (sample.crop, sample.flip) == (again.crop, again.flip)
    side = source.clip.resize_side
    assert sample.video_tchw.shape == (4, 3, side, side)
    assert sample.video_tchw.dtype == torch.uint8
    assert sample.targets["depth"].shape == (4, side, side)
    assert torch.equal(sample_of(source, 142).video_tchw, sample.video_tchw)
    assert sample_of(SyntheticSource(clip=source.clip, seed=5), 42).targets == {}
    with pytest.raises(LayerlockError, match="no target speed; it has label and depth"):
        SyntheticSource(clip=source.clip, seed=5, targets=("speed",))


def test_crops_stay_inside_and_flips_keep_labels_true() -> None:
    source = SyntheticSource(clip=ClipConfig(frames=1, size=20), seed=5, targets=("label",))
    samples = [sample_of(source, index) for index in range(60)]
    room = source.clip.resize_side - 20
    assert {sample.crop[0] for sample in samples} == {sample.crop[1] for sample in samples} == set(range(room + 1))
    assert 15 < sum(sample.flip for sample in samples) < 45
    true_b = labels(5, torch.arange(60)).tolist()
    for sample, label in zip(samples, true_b, strict=True):
        assert sample.targets["label"] == (mirrored(label) if sample.flip else label)
    plain = SyntheticSource(clip=ClipConfig(frames=1, size=20, flip=False), seed=5)
    assert not any(sample_of(plain, index).flip for index in range(20))


WITHOUT = """
import sys
from importlib import metadata
sys.modules["av"] = None
found = metadata.version
def version(name):
    if name == "av":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""


def test_a_run_of_the_synthetic_world_needs_no_decoder(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)  # the workers read it too
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    small = "--steps 20 --batch 2 --clip.frames 4 --clip.size 16 --model.width 24 --model.mlp 24 --run.workers 1"
    done = subprocess.run(
        [sys.executable, "-m", "layerlock", "pretrain", "layerlock-tiny", *small.split(), "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
