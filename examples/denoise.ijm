// Denoise a TIFF with quietscope, from Fiji or ImageJ.
//
// In the window: denoises the image in front; set the first two lines.
// Without one:   ImageJ --headless -macro denoise.ijm "quietscope=… model=… in=… out=…"
// (no spaces in these paths; in the window there may be).

quietscope = "quietscope";
model = "models/gfp";

function given(name, otherwise) {
    words = split(getArgument(), " ");
    for (i = 0; i < words.length; i++)
        if (startsWith(words[i], name + "="))
            return substring(words[i], lengthOf(name) + 1);
    return otherwise;
}

quietscope = given("quietscope", quietscope);
model = given("model", model);
folder = getDirectory("temp");
noisy = given("in", folder + "quietscope_in.tif");
clean = given("out", folder + "quietscope_out.tif");
if (getArgument() == "") {
    title = getTitle();
    saveAs("Tiff", noisy);
    rename(title);
} else {
    open(noisy);
    title = getTitle();
    close();
}
print(exec(quietscope, "denoise", noisy, "--model", model, "--out", clean, "--imagej", "--overwrite"));
open(clean);
rename("denoised " + title);
getStatistics(area, mean);
print("frames " + nSlices + ", mean " + mean);
