"""Models of diffusers are denoisers: what they are in closed form, and one step of their own schedulers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from headstart import guide, load_denoiser
from headstart.errors import DenoiserError, InputError
from headstart.integrations.diffusers import Latents, from_diffusers, load, read_scheduler

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
MEAN, VARIANCE = 0.3, 0.25


class Exact(nn.Module):
    """The exact network for N(0.3, 0.25): of what it sees, z = alpha x at the noise-to-signal ratio of its time."""

    def __init__(self, level, alpha, answer):
        super().__init__()
        self.level, self.alpha, self.answer = level, alpha, answer
        self.times = []

    def forward(self, sample, timestep, return_dict=True):
        self.times.append(timestep)
        s = self.level(timestep).reshape(-1, 1, 1, 1).to(sample)
        x = sample / self.alpha(s)
        return SimpleNamespace(sample=self.answer(x, exact(x, s), s))


def exact(x, s):
    s = torch.as_tensor(s, dtype=x.dtype).reshape(-1, 1, 1, 1)
    return (s**2 * MEAN + VARIANCE * x) / (VARIANCE + s**2)


def preserving(s):
    return (1 + s**2).rsqrt()


ANSWERS = {
    "epsilon": lambda x, clean, s: (x - clean) / s,
    "v_prediction": lambda x, clean, s: ((x - clean) / s - s * clean) / (1 + s**2).sqrt(),
    "sample": lambda x, clean, s: clean,
    "flow_prediction": lambda x, clean, s: (x - clean) / s - clean,
}


def table_of(scheduler):
    """Sigma at a whole time."""
    levels = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    return lambda t: levels[t.round().long()]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "kind", ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"]
)
def test_a_table_of_levels(diffusers, kind, prediction):
    scheduler = getattr(diffusers, kind)(prediction_type=prediction)
    network = Exact(table_of(scheduler), preserving, ANSWERS[prediction])
    denoiser = from_diffusers(network, scheduler)
    s = table_of(scheduler)(torch.tensor([0, 500, 999]))
    torch.testing.assert_close(denoiser(X, s), exact(X, s), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(network.times[-1], torch.tensor([0.0, 500.0, 999.0]), atol=1e-3, rtol=0)
    assert denoiser.sigma_max == pytest.approx(float(s[-1]))


def test_a_rounded_time_is_whole(diffusers):
    scheduler = diffusers.DDPMScheduler()
    network = Exact(table_of(scheduler), preserving, ANSWERS["epsilon"])
    from_diffusers(network, scheduler, rounded=True)(X, 1.234)
    assert network.times[-1].dtype == torch.int64


def test_continuous_times(diffusers):
    """As Stable Video Diffusion is trained: v, told a quarter of the logarithm of sigma."""
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    network = Exact(lambda t: (4 * t).exp(), preserving, ANSWERS["v_prediction"])
    denoiser = from_diffusers(network, scheduler)
    s = torch.tensor([0.01, 1.0, 100.0])
    torch.testing.assert_close(denoiser(X, s), exact(X, s), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_is_as_its_scheduler_says(diffusers, kind, prediction):
    scheduler = getattr(diffusers, kind)(prediction_type=prediction)

    class Raw(nn.Module):
        def forward(self, sample, timestep):
            return (torch.tanh(sample) + timestep.reshape(-1, 1, 1, 1),)

    s = torch.tensor(1.7)
    seen = scheduler.precondition_inputs(X, s)
    raw = Raw()(seen, scheduler.precondition_noise(s).expand(3))[0]
    denoiser = from_diffusers(Raw(), scheduler)
    torch.testing.assert_close(denoiser(X, s), scheduler.precondition_outputs(X, raw, s))
    assert denoiser.sigma_max == 80
    with pytest.raises(InputError, match="up to sigma = 80"):
        denoiser(X, 81.0)


@pytest.mark.parametrize("kind", ["flow matching", "DPM-Solver"])
def test_flows(diffusers, kind):
    if kind == "flow matching":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    network = Exact(lambda t: t / 1000 / (1 - t / 1000), lambda s: 1 / (1 + s), ANSWERS["flow_prediction"])
    s = torch.tensor([0.05, 1.0, 20.0])
    torch.testing.assert_close(from_diffusers(network, scheduler)(X, s), exact(X, s), atol=1e-4, rtol=1e-3)


def test_a_score(diffusers):
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=50.0)
    network = Exact(lambda t: t, torch.ones_like, lambda x, clean, s: (clean - x) / s**2)
    denoiser = from_diffusers(network, scheduler)
    torch.testing.assert_close(denoiser(X, 3.0), exact(X, 3.0), atol=1e-5, rtol=1e-4)
    assert denoiser.sigma_max == 50


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_pure_noise_at_the_end_of_a_table_is_left_out_and_said(diffusers, kind):
    scheduler = getattr(diffusers, kind)(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    table, last = scheduler.alphas_cumprod, scheduler.alphas_cumprod[-2].double()
    with pytest.warns(UserWarning, match="pure noise"):
        denoiser = from_diffusers(Exact(table_of(scheduler), preserving, ANSWERS["v_prediction"]), scheduler)
    assert denoiser.sigma_max == pytest.approx(float((1 / last - 1).sqrt()))
    s = float((1 / table[500] - 1).sqrt())
    torch.testing.assert_close(denoiser(X, s), exact(X, torch.tensor(s)), atol=1e-4, rtol=1e-3)


def unet(diffusers, **changed):
    torch.manual_seed(0)
    small = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8,),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    }
    return diffusers.UNet2DModel(**{**small, **changed}).eval()


@torch.no_grad()
def test_labels_and_learned_variances(diffusers):
    network = unet(diffusers, num_class_embeds=5, out_channels=2)
    scheduler = diffusers.DDPMScheduler()
    s = table_of(scheduler)(torch.tensor([300]))
    labels = torch.tensor([0, 1, 4])
    noise = network(X / (1 + s**2).sqrt(), torch.tensor([300.0]), class_labels=labels).sample[:, :1]
    found = from_diffusers(network, scheduler)(X, s, label=labels)
    torch.testing.assert_close(found, X - s * noise, atol=1e-4, rtol=1e-3)


def text_unet(diffusers, **changed):
    torch.manual_seed(0)
    small = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8,),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 6,
        "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "mid_block_type": None,
    }
    return diffusers.UNet2DConditionModel(**{**small, **changed}).eval()


@torch.no_grad()
def test_text_added_conditions_and_guidance(diffusers):
    network = text_unet(
        diffusers, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=11
    )
    scheduler = diffusers.EulerDiscreteScheduler()
    s, t = table_of(scheduler)(torch.tensor([300])), torch.tensor([300.0])
    text, empty = torch.randn(1, 5, 6), torch.zeros(1, 5, 6)
    added = {"text_embeds": torch.randn(1, 3), "time_ids": torch.tensor([[8.0, 8.0]])}
    rows = {name: value.expand(3, -1) for name, value in added.items()}

    def noise(words):
        seen = X / (1 + s**2).sqrt()
        return network(seen, t, encoder_hidden_states=words.expand(3, -1, -1), added_cond_kwargs=rows).sample

    denoiser = guide(from_diffusers(network, scheduler), 7.5, {"encoder_hidden_states": empty})
    found = denoiser(X, s, encoder_hidden_states=text, added_cond_kwargs=added)
    expected = X - s * (noise(empty) + 7.5 * (noise(text) - noise(empty)))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_half_networks_are_called_in_their_type(diffusers):
    network = unet(diffusers).to(torch.bfloat16)
    found = from_diffusers(network, diffusers.DDPMScheduler())(X, 1.0)
    assert found.dtype == torch.float32


def test_latents_go_there_and_back():
    """An affine VAE: twice the image, less one."""

    class Vae:
        config = SimpleNamespace(scaling_factor=0.5, shift_factor=0.25)

        def encode(self, x):
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: 2 * x - 1))

        def decode(self, z):
            return SimpleNamespace(sample=(z + 1) / 2)

    latents = Latents(Vae())
    torch.testing.assert_close(latents.encode(X), (2 * X - 1.25) * 0.5)
    torch.testing.assert_close(latents.decode(latents.encode(X)), X)
    Vae.config = {"scaling_factor": 0.5, "latents_mean": [0.1], "latents_std": [2.0]}
    torch.testing.assert_close(latents.encode(X), (2 * X - 1.1) * 0.25)
    torch.testing.assert_close(latents.decode(latents.encode(X)), X)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (lambda d: d.LCMScheduler(), "no denoisers"),
        (lambda d: d.CMStochasticIterativeScheduler(), "no denoisers"),
        (lambda d: d.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "from noise to data"),
        (lambda d: d.VQDiffusionScheduler(num_vec_classes=4), "does not say what its network sees"),
        (lambda d: d.DDPMScheduler(prediction_type="magic"), "'magic'"),
        (lambda d: SimpleNamespace(), "no config"),
        (lambda d: None, "Give its scheduler too"),
    ],
)
def test_what_is_no_denoiser_is_refused(diffusers, scheduler, said):
    with pytest.raises(InputError, match=said):
        from_diffusers(nn.Identity(), scheduler(diffusers))


def test_a_saved_pipeline_and_a_saved_network(diffusers, tmp_path):
    network, scheduler = unet(diffusers), diffusers.DDPMScheduler(beta_end=0.03)
    expected = from_diffusers(network, scheduler)(X, 2.0)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "pipeline")
    for path in ("pipeline", "pipeline/unet"):
        found = load_denoiser(f"diffusers:{tmp_path / path}")
        assert torch.equal(found(X, 2.0), expected)
        assert not found.network.training


@pytest.mark.parametrize("file", ["model_index.json", "config.json"])
def test_a_folder_that_names_code_is_refused(diffusers, tmp_path, file):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "os.system"}))
    if file == "model_index.json":
        index = {"unet": ["evil", "System"], "scheduler": ["diffusers", "DDPMScheduler"]}
        (tmp_path / file).write_text(json.dumps(index))
        (tmp_path / "unet").mkdir()
        (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "System"}))
    with pytest.raises(DenoiserError, match="diffusers does not have"):
        load_denoiser(f"diffusers:{tmp_path}")


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(DenoiserError, match=r"model_index\.json or config\.json"):
        load_denoiser(f"diffusers:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"unet": 3, "scheduler": 4}', '{"unet": [], "scheduler": {}}', "\x00", "NaN"]
)
@pytest.mark.parametrize("file", ["model_index.json", "scheduler_config.json"])
def test_settings_that_are_none_are_refused(file, text, tmp_path):
    (tmp_path / file).write_text(text)
    with pytest.raises(DenoiserError, match=file):
        load(tmp_path) if file == "model_index.json" else read_scheduler(tmp_path)
