@echo off
rem Runs at the end of the installer; constructor sets PREFIX to the environment that it made.
for %%w in ("%PREFIX%\quietscope-*.whl") do (
  "%PREFIX%\python.exe" -m pip install "%%w[train]" || exit /b 1
)
"%PREFIX%\python.exe" -m menuinst --prefix "%PREFIX%" --install quietscope_menu.json
