"""Which methods can be trained, by the names that options, bundles and the command line use.

Owns that one list: a new method is a file in `methods` and a line here. Nothing is imported until
it is trained, so that the list can be shown without torch.
"""

from __future__ import annotations

METHODS: dict[str, str] = {
    "lattice": "lattice:LatticeLearner",
    "refined": "refined:RefinedLearner",
    "n2v": "masked:Noise2Void",
    "n2v2": "masked:Noise2Void2",
    "structn2v": "masked:StructNoise2Void",
    "r2r": "recorrupted:RecorruptedLearner",
    "pn2v": "sampled:ProbabilisticNoise2Void",
    "n2n": "n2n:Noise2Noise",
    "n2s": "n2s:Noise2Self",
    "student": "student:Student",
    "care": "care:ContentAwareRestoration",
    "dncnn": "dncnn:DenoisingCNN",
    "divnoising": "divnoising:DivNoising",
    "tomogan": "tomogan:TomoGAN",
    "hdn": "hdn:HierarchicalDivNoising",
}
"""Name to module of `methods` and Learner in it."""
TEACHERS: dict[str, str] = {"teacher": "teacher:Teacher"}
"""What methods train before themselves, in the same way; alone it is of no use to anyone."""
TAUGHT: dict[str, str] = {"teacher": "student"}
"""Whose teacher it is."""
